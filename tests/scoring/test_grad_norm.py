"""Full-model per-sample norms against torch.func and against one backward for each sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm import GradNorm

Loss = Callable[[Tensor], Tensor]


def own_losses(outputs: Tensor) -> Tensor:
    """A loss of each sample alone, [B], curved so that no gradient is constant."""
    return outputs.flatten(1).sin().sum(dim=1) + outputs.flatten(1).square().mean(dim=1)


def func_norms(model: nn.Module, x: Tensor) -> Tensor:
    """The reference: torch.func's per-sample gradients of all trainable parameters."""
    trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    rest = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    rest |= dict(model.named_buffers())

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        output = functional_call(model, parameters | rest, (sample.unsqueeze(0),), tie_weights=True)
        return own_losses(output)[0]

    gradients = vmap(grad(loss), in_dims=(None, 0))(trainable, x)
    return sum(g.flatten(1).square().sum(dim=1) for g in gradients.values()).sqrt()


def loop_norms(model: nn.Module, x: Tensor) -> Tensor:
    """The plainly right version: one backward for each sample."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    norms = []
    for i in range(x.shape[0]):
        loss = own_losses(model(x[i : i + 1]))[0]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        norms.append(sum(g.square().sum() for g in gradients if g is not None).sqrt())
    return torch.stack(norms)


def by_product(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    model.zero_grad()
    grad_norm = GradNorm(model)
    with grad_norm:
        own_losses(model(x)).mean().backward()
    return grad_norm.norms(), [p.grad for p in model.parameters()]


def check(model: nn.Module, x: Tensor, functional: bool = True) -> None:
    """Norms equal both references, and the backward's gradients are those without GradNorm."""
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    norms, gradients = by_product(model, x)
    torch.testing.assert_close(norms, loop_norms(model, x), rtol=1e-9, atol=1e-12)
    if functional:
        torch.testing.assert_close(norms, func_norms(model, x), rtol=1e-9, atol=1e-12)
    model.zero_grad()
    own_losses(model(x)).mean().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.grad is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)


# Positions x widths on both sides of 2 T^2 = d_in d_out, so both forms run.
@pytest.mark.parametrize("shape", [(), (1,), (3,), (20,), (2, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    check(
        nn.Sequential(nn.Linear(6, 5, bias=bias), nn.Tanh(), nn.Linear(5, 7)),
        torch.randn(4, *shape, 6),
    )


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 11)),
    (nn.Conv1d(4, 6, 5, groups=2, dilation=2, padding="same"), (4, 12)),
    (nn.Conv2d(3, 8, 3, padding=1), (3, 8, 8)),  # product form
    (nn.Conv2d(8, 8, 3), (8, 4, 4)),  # Gram form
    (nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)), (4, 9, 7)),
    (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 5, 5)),  # depthwise
    (nn.Conv2d(6, 9, 3, groups=3, bias=False), (6, 5, 5)),
    (nn.Conv2d(4, 5, 1, stride=2), (4, 6, 6)),
    (nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (3, 6, 6)),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (3, 6, 6)),
    (nn.Conv2d(3, 4, 4, padding="same"), (3, 6, 6)),  # pads one side more
    (nn.Conv2d(3, 4, 3, padding="valid"), (3, 6, 6)),
    (nn.Conv3d(2, 4, (2, 3, 2), stride=(1, 2, 1), padding=1, groups=2), (2, 4, 5, 4)),
]


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even")
@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda v: str(v).replace(" ", ""))
def test_convolution(layer: nn.Module, shape: tuple[int, ...]) -> None:
    check(layer, torch.randn(3, *shape))


class Normal(nn.Module):
    """A normalisation behind a layer, with scales and shifts away from one and zero."""

    def __init__(self, first: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = first, norm
        for parameter in norm.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.first(x))
        return y


@pytest.mark.parametrize(
    ("norm", "functional"),
    [
        (nn.LayerNorm([5, 5]), True),
        (nn.LayerNorm(5, bias=False), True),
        (nn.LayerNorm(5, elementwise_affine=False), True),
        (nn.RMSNorm([5, 5]), True),
        (nn.RMSNorm(5, eps=1e-3), True),
        (nn.GroupNorm(2, 6), True),
        (nn.InstanceNorm2d(6, affine=True), False),
        (nn.BatchNorm2d(6).eval(), True),
        (nn.BatchNorm2d(6, affine=False).eval(), True),
    ],
    ids=str,
)
def test_normalisation(norm: nn.Module, functional: bool) -> None:
    if isinstance(norm, nn.BatchNorm2d):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    check(Normal(nn.Conv2d(2, 6, 2), norm), torch.randn(3, 2, 6, 6), functional)


def test_batch_norm_of_rows() -> None:
    check(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3).eval()), torch.randn(5, 4))


# Few tokens, so that samples repeat them, and some are padding.
@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_embedding(padding_idx: int | None, shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=padding_idx), nn.Linear(4, 3))
    check(model, torch.randint(0, 5, (6, *shape)))


class Reused(nn.Module):
    """Every family called more than once, at unequal lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.cat([self.embedding(ids), self.embedding(ids[:, :2])], dim=1)
        for _ in range(2):
            x = self.norm(self.linear(x)).tanh()
            x = self.conv(x.mT).mT[:, 1:]
        return x


def test_reused_modules_have_cross_terms() -> None:
    torch.manual_seed(0)
    check(Reused(), torch.randint(0, 7, (4, 5)))


class Shared(nn.Module):
    """One weight in two modules of a kind, of unequal strides."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, stride=2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).tanh())
        return y


def test_shared_weight_has_cross_terms() -> None:
    check(Shared(), torch.randn(3, 3, 6, 6))


def test_siamese_calls_are_one_sample() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = nn.Sequential(
                nn.Conv2d(2, 3, 3), nn.GroupNorm(3, 3), nn.Flatten(), nn.Linear(12, 4)
            )

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.tower(x[:, 0]) * self.tower(x[:, 1])
            return y

    check(Siamese(), torch.randn(3, 2, 2, 4, 4))


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_frozen_parameters_do_not_count(frozen: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.GroupNorm(2, 4))
    model.get_parameter(frozen).requires_grad_(False)
    check(model, torch.randn(3, 2, 5, 5))


def test_unsupported_but_frozen_is_fine() -> None:
    model = nn.Sequential(nn.PReLU(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    check(model, torch.randn(3, 4))


def test_unused_layers_contribute_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].add_module("idle", nn.Linear(2, 2))
    check(model, torch.randn(3, 4))


def test_transformer_block_under_checkpointing() -> None:
    from torch.utils.checkpoint import checkpoint

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
            self.norm = nn.LayerNorm(8)

        def attend(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
            y: Tensor = x + self.out(F.scaled_dot_product_attention(q, k, v))
            return y

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = checkpoint(self.attend, x, use_reentrant=False)
            return y

    check(Block(), torch.randn(3, 6, 8), functional=False)


def test_an_easy_sample_does_not_underflow() -> None:
    # float32 squares of 1e-25 are 0: the norm of an easy sample must not be.
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(2, 2, 4, 4)
    scale = torch.tensor([1.0, 1e-25])
    grad_norm = GradNorm(model, reduction="sum")
    with grad_norm:
        (own_losses(model(x)) * scale).sum().backward()
    norms = grad_norm.norms()
    expected = loop_norms(model.double(), x.double()) * scale.double()
    torch.testing.assert_close(norms.double(), expected, rtol=1e-4, atol=0)


def test_reductions_and_weights() -> None:
    model, x = nn.Linear(4, 3).double(), torch.randn(5, 4).double()
    expected = loop_norms(model, x)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    for reduction, loss, arguments in [
        ("sum", own_losses(model(x)).sum, {}),
        ("mean", lambda: (weight * own_losses(model(x))).sum() / 4, {"weight": weight, "count": 4}),
    ]:
        with GradNorm(model, reduction=reduction) as grad_norm:
            value = loss() if reduction == "mean" else own_losses(model(x)).sum()
            value.backward()
        torch.testing.assert_close(grad_norm.norms(**arguments), expected)


def test_empty_batch() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    with GradNorm(model) as grad_norm:
        model(torch.zeros(0, 2, 4, 4)).sum().backward()
    assert grad_norm.norms().shape == (0,)


@pytest.mark.parametrize(
    "norm", [nn.Identity(), nn.GroupNorm(2, 4), nn.LayerNorm([4, 4, 4])], ids=str
)
def test_autocast(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(4, 2, 6, 6)
    with GradNorm(model) as grad_norm:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = own_losses(model(x).float()).mean()
        loss.backward()
    norms = grad_norm.norms()
    torch.testing.assert_close(norms, loop_norms(model, x), rtol=0.05, atol=0)


def test_inputs_by_name() -> None:
    layer = nn.Linear(4, 3)
    with GradNorm(layer) as grad_norm:
        layer(input=torch.ones(2, 4)).sum().backward()
    assert grad_norm.norms().shape == (2,)


def test_positions_that_cancel_have_a_norm() -> None:
    # Two positions with opposite gradients: the Gram form's sum rounds to either side of zero.
    layer = nn.Linear(300, 200, bias=False)
    x = torch.randn(50, 1, 300).expand(50, 2, 300)
    with GradNorm(layer) as grad_norm:
        (layer(x) * torch.tensor([[1.0], [-1.0]])).sum().backward()
    assert (grad_norm.norms() < 1).all()


def test_parameters_of_the_model_itself_are_refused() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.class_token = nn.Parameter(torch.zeros(3))

    with pytest.raises(InputError, match="Token.*class_token"):
        GradNorm(Token())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_the_gpu() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 64, 3, stride=4, groups=2),
        nn.Flatten(2),
        nn.LayerNorm(4),
        nn.Linear(4, 6),
    )
    x = torch.randn(5, 3, 8, 8)
    expected = loop_norms(model.double(), x.double())
    model.float().cuda()
    with GradNorm(model) as grad_norm:
        own_losses(model(x.cuda())).mean().backward()
    torch.testing.assert_close(grad_norm.norms().cpu(), expected.float(), rtol=1e-3, atol=1e-5)


def test_detached_model_is_as_before() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with GradNorm(model):
        assert "forward" in vars(model[0])
    assert "forward" not in vars(model[0])
    with pytest.raises(InputError, match="backward"):
        GradNorm(model).norms()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn.PReLU(), "PReLU"),
        (nn.ConvTranspose2d(2, 2, 2), "ConvTranspose2d"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "odd"),
        (nn.Embedding(3, 2, scale_grad_by_freq=True), "couple"),
        (nn.Embedding(3, 2, max_norm=1.0), "max_norm"),
        (nn.InstanceNorm1d(3, affine=True, track_running_stats=True), "running"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_refused_at_construction(module: nn.Module, names: str) -> None:
    model = nn.Sequential()
    model.add_module("odd", module)
    with pytest.raises(InputError, match="odd") as error:
        GradNorm(model)
    assert names in str(error.value)


def test_subclass_with_its_own_forward_is_refused() -> None:
    class Standardised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight / self.weight.std())

    class Named(nn.Linear):
        pass

    with pytest.raises(InputError, match="Standardised"):
        GradNorm(nn.Sequential(Standardised(2, 2)))
    check(nn.Sequential(Named(4, 3)), torch.randn(3, 4))


def test_train_mode_batch_norm_is_refused_by_name() -> None:
    for norm in (
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, affine=False),
        nn.BatchNorm1d(3, track_running_stats=False).eval(),
    ):
        model = nn.Sequential()
        model.add_module("inner", norm)
        model.add_module("head", nn.Linear(3, 2))
        with GradNorm(model), pytest.raises(InputError, match="'inner'.*eval"):
            model(torch.randn(4, 3))


def test_embedding_tied_to_linear_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    model[1].weight = model[0].weight
    with pytest.raises(InputError, match="'1.weight' and '0.weight'"):
        GradNorm(model)


@pytest.mark.parametrize("first", [True, False])
def test_weight_used_outside_its_layer_is_refused(first: bool) -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if first:
                y: Tensor = self.layer(F.linear(x, self.layer.weight))
            else:
                y = F.linear(self.layer(x), self.layer.weight)
            return y

    model = Outside()
    with GradNorm(model), pytest.raises(InputError, match="'layer.weight'.*outside"):
        own_losses(model(torch.randn(3, 4))).mean().backward()


def test_weight_used_only_outside_its_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with GradNorm(model), pytest.raises(InputError, match="outside"):
        F.linear(torch.randn(3, 4), model[0].weight).sum().backward()


def test_folded_batch_is_refused() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.second(self.first(x).flatten(0, 1))
            return y

    model = Folded()
    with GradNorm(model), pytest.raises(InputError, match="'second' sees 6 rows.*3"):
        model(torch.randn(3, 2, 4))


def test_second_backward_without_reading_is_refused() -> None:
    model = nn.Linear(4, 3)
    with GradNorm(model) as grad_norm:
        model(torch.randn(2, 4)).sum().backward()
        with pytest.raises(InputError, match="second gradient"):
            model(torch.randn(2, 4)).sum().backward()
        grad_norm.reset()
        model(torch.randn(3, 4)).sum().backward()
        assert grad_norm.norms().shape == (3,)
        model(torch.randn(5, 4)).sum().backward()
        assert grad_norm.norms().shape == (5,)


def test_zero_weight_has_no_norm() -> None:
    model = nn.Linear(4, 3)
    with GradNorm(model) as grad_norm:
        model(torch.randn(3, 4)).sum().backward()
    with pytest.raises(InputError, match=r"weight\[1\]"):
        grad_norm.norms(weight=torch.tensor([1.0, 0.0, 0.0]))
