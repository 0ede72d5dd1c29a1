"""Passes without a backward: the logits of the network, whatever layout it is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hvdfilter import models
from hvdfilter.data import Normalize
from hvdfilter.training.forward import forward_only
from hvdfilter.training.network import EITHER_LAYOUT, Network

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", sorted(EITHER_LAYOUT))
def test_a_reference_network_gives_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    model = models.make(name, 3, 10, 32)
    for norm in (part for part in model.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # the last of a block starts at zero
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare = Normalize((0.5,) * 3, (0.25,) * 3)
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    seen = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        logits = forward_only(Network(prepare, model), name, CPU)(x)
        assert model.training  # a copy was made to look with
        expected = model.eval()(prepare(x))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[1].is_contiguous()
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(weight.is_contiguous() for weight in model.parameters())


def test_a_network_of_the_users_own_may_view_its_features_as_flat() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).view(len(x), -1))

    x = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    prepare = Normalize((0.5,) * 3, (0.25,) * 3)
    network = Network(prepare, Flat())
    assert forward_only(network, "nets:Flat", CPU)(x).shape == (2, 2)
