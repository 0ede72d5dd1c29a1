"""Full-model per-sample norms against torch.func and against one backward for each sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm import GradNorm
from tests.scoring.grad_norm_cases import (
    check,
    loop_norms,
    own_losses,
)


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


def test_zero_weight_has_no_norm() -> None:
    model = nn.Linear(4, 3)
    with GradNorm(model) as grad_norm:
        model(torch.randn(3, 4)).sum().backward()
    with pytest.raises(InputError, match=r"weight\[1\]"):
        grad_norm.norms(weight=torch.tensor([1.0, 0.0, 0.0]))
