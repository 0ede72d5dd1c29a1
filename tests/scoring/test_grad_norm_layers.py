"""Per-sample norms of each kind of layer, and of weights that are used more than once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.scoring.grad_norm_cases import (
    check,
)


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
