"""The hidden share's scale under schedulers and Horovod's nested step."""

from __future__ import annotations

import pytest
import torch

from hvdfilter.errors import InputError
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


def parameter(value: float = 0.0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([value]))


def scaled_by(factor: float, *optimizers: torch.optim.Optimizer) -> RateScale:
    scale = RateScale()
    for optimizer in optimizers:
        scale.attach(optimizer)
    scale.scale = factor
    return scale


def test_each_of_several_optimizers_has_its_own_rate() -> None:
    weights = parameter(), parameter()
    one, two = torch.optim.SGD([weights[0]], lr=0.5), torch.optim.SGD([weights[1]], lr=0.125)
    scaled_by(4.0, one, two)

    def broken() -> float:
        raise ArithmeticError

    for weight in weights:
        weight.grad = torch.ones(1)
    with pytest.raises(ArithmeticError):
        one.step(broken)  # and the loop goes on
    two.step()
    one.step()
    assert [w.item() for w in weights] == [-0.5 * 4, -0.125 * 4]
    assert [o.param_groups[0]["lr"] for o in (one, two)] == [0.5, 0.125]


def test_a_step_that_a_gradient_scaler_skips_is_no_step() -> None:
    weight = parameter()
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaled_by(4.0, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor in (float("inf"), 1.0):  # the first gradient overflows
        optimizer.zero_grad()
        scaler.scale(weight.sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.param_groups[0]["lr"] == 0.5
    assert weight.item() == -0.5 * 4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerates_wrapper(precision: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(
        cpu=True, mixed_precision=precision, gradient_accumulation_steps=2
    )
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    plain = torch.optim.SGD(model.parameters(), lr=0.5)
    model, optimizer = accelerator.prepare(model, plain)
    assert not hasattr(optimizer, "_optimizer_step_pre_hooks")  # what made it fail
    scaled_by(4.0, optimizer, plain)  # the same one: scaled once
    for _ in range(2):  # gradients of 1, halved and accumulated: one step
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.ones(1, 1)).sum())
            optimizer.step()
            optimizer.zero_grad()
    assert model.weight.item() == -0.5 * 4
    assert optimizer.param_groups[0]["lr"] == 0.5
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_lightnings_wrapper() -> None:
    wrapper = pytest.importorskip("lightning.pytorch.core.optimizer").LightningOptimizer
    weight = parameter()
    plain = torch.optim.SGD([weight], lr=0.5)
    scaled_by(4.0, wrapper(plain))
    weight.grad = torch.ones(1)
    plain.step()  # which Lightning's strategies call in the end
    assert weight.item() == -0.5 * 4 and plain.param_groups[0]["lr"] == 0.5


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(InputError, match="Linear is no torch optimizer"):
        RateScale().attach(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
