"""Models whose per-sample norms have no exact rule are refused, by the name of the layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm import GradNorm
from tests.scoring.grad_norm_cases import (
    check,
    own_losses,
)


def test_parameters_of_the_model_itself_are_refused() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.class_token = nn.Parameter(torch.zeros(3))

    with pytest.raises(InputError, match="Token.*class_token"):
        GradNorm(Token())


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
