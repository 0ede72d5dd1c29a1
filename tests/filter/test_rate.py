"""The hidden share's scale under schedulers and Horovod's nested step."""

from __future__ import annotations

import pytest
import torch

from hvdfilter.filter.rate import RateScale


class Nested(torch.optim.SGD):
    """Like Horovod's optimiser: a step, with hooks, that calls a step with hooks."""

    def step(self, closure=None):  # type: ignore[override]
        return super().step(closure)


@pytest.mark.parametrize("kind", [torch.optim.SGD, Nested])
def test_scale_holds_during_the_step_and_no_longer(kind: type) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = kind([weight], lr=0.5)
    scale = RateScale()
    scale.attach(optimizer)
    scale.attach(optimizer)  # twice by mistake: still once
    scale.scale = 4.0
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 0.5
    assert weight.item() == -2 * 0.5 * 4


def test_a_recursive_scheduler_is_not_disturbed() -> None:
    # CosineAnnealingLR computes each rate from the last one it finds in the optimiser.
    def rates(scaled: bool) -> list[float]:
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        scale = RateScale()
        if scaled:
            scale.attach(optimizer)
            scale.scale = 1.3
        seen = []
        for _ in range(10):
            weight.grad = torch.ones(1)
            optimizer.step()
            scheduler.step()
            seen.append(scheduler.get_last_lr()[0])
        return seen

    assert rates(True) == rates(False)
