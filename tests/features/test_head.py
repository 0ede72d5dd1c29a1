"""The gradient of the last linear layer from its input and the logits, and models without one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hvdfilter import scoring
from hvdfilter.errors import InputError
from hvdfilter.features.head import Head, check


class Scaled(nn.Module):
    """As resnet9: logits are a constant times the output of a head that has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.head = nn.Linear(5, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -0.125 * self.head(self.body(x))


@pytest.mark.parametrize("scaled", [False, True])
def test_the_norm_is_that_of_an_explicit_gradient_of_each_sample(scaled: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    model = Scaled() if scaled else plain
    layer = model.head if isinstance(model, Scaled) else plain[2]
    x, y = torch.randn(12, 6), torch.randint(4, (12,))
    x[0] *= 100  # a sample far out
    with torch.no_grad(), Head(model) as head:
        logits = model(x)
        found = head.take(logits).gradient_norm(scoring.score(logits, y).grad_norm)
    for i in range(12):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(layer.parameters()))
        norm = sum(g.double().square().sum() for g in gradients).sqrt()
        assert float(found[i]) == pytest.approx(float(norm), rel=1e-5)


def test_an_easy_sample_keeps_its_place() -> None:
    # A gap of 25 in float32: softmax minus one is 0 there, and all such samples would tie.
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
    x, y = torch.tensor([[25.0], [26.0], [27.0]]), torch.zeros(3, dtype=torch.long)
    with torch.no_grad(), Head(model) as head:
        logits = model(x)
        norm = head.take(logits).gradient_norm(scoring.score(logits, y).grad_norm)
    # ||p - onehot|| = sqrt(2) (1 - p_y), and 1 - p_y is exp(-gap) but for terms of its square.
    expected = 2**0.5 * torch.exp(-x.double()[:, 0]) * x.double()[:, 0]
    torch.testing.assert_close(norm.double(), expected, rtol=1e-5, atol=0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


class Early(nn.Module):
    """A linear layer inside, and a convolution at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.last = nn.Linear(4, 4), nn.Conv1d(1, 3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.gate(x)[:, None]).flatten(1)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.Sequential(nn.Conv1d(4, 2, 1), nn.Flatten()), "Sequential has run no torch.nn.Linear"),
        (Twice(), r"its last linear layer, layer \(Linear.*runs 2 times in one pass"),
        (Early(), r"layer, gate \(Linear.*gives \[2, 4\] and the model \[2, 3\]"),
        (nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), "0 .*not its output, nor that times"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True)), "is not its output, nor that"),
    ],
)
def test_a_model_without_a_linear_end_is_told_what_was_found(
    model: nn.Module, sentence: str
) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 4, 1) if isinstance(model, nn.Sequential) and len(model) == 2 else None
    x = x if x is not None and isinstance(model[0], nn.Conv1d) else torch.randn(2, 4)
    model.train()
    with pytest.raises(InputError, match=f"feature-filter needs a model that ends in.*{sentence}"):
        check(model, x)
    assert all(part.training for part in model.modules())
    assert not any(part._forward_hooks for part in model.modules())
