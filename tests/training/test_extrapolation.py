"""Extrapolated steps: the formula written out, what it does to a rotation, and resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hvdfilter import policies
from hvdfilter.errors import InputError
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.extrapolation import Extrapolation
from tests.training.cases import Stepper, network, same_weights, stopped_and_resumed


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("factor", [0.0, 1.0, 2.5])
def test_steps_are_the_formula_written_out(momentum: float, factor: float) -> None:
    # Half of the samples hidden, so the rate is twice what the optimiser holds; decay and
    # Nesterov's momentum as in a run.
    rate, decay = 0.1, 0.01
    model = network()
    w = [p.detach().clone().double() for p in model.parameters()]
    options = {"lr": rate, "momentum": momentum, "weight_decay": decay}
    optimizer = torch.optim.SGD(model.parameters(), nesterov=momentum > 0, **options)
    policy = policies.make("random", keep=0.5)
    stepper = Stepper(model, optimizer, policy, 40, extrapolation=factor)
    past = [torch.zeros_like(p) for p in w]
    moving = [torch.zeros_like(p) for p in w]
    for epoch in range(2):
        for ids in stepper.batches(epoch, 8):
            assert stepper.filter.lr_scale == 2
            stepper(ids)
            ahead = [(p - factor * 2 * rate * g).requires_grad_() for p, g in zip(w, past)]  # noqa: B905
            x = stepper.prepare(stepper.x[ids]).double().flatten(1)
            hidden = torch.tanh(x @ ahead[0].T + ahead[1])
            loss = F.cross_entropy(hidden @ ahead[2].T + ahead[3], stepper.y[ids])
            past = list(torch.autograd.grad(loss, ahead))
            for at, gradient in enumerate(past):
                gradient = gradient + decay * w[at]
                moving[at] = momentum * moving[at] + gradient
                w[at] = w[at] - 2 * rate * (gradient + momentum * moving[at])
    for ours, theirs in zip(model.parameters(), w, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_it_settles_a_rotation_in_which_plain_steps_move_away() -> None:
    # min over a, max over b of a * b: a plain step of 0.3 multiplies the distance from the saddle
    # by sqrt(1.09), whatever the momentum-free rate; the extrapolated one falls by about 0.95.
    far = {}
    for factor in (0.0, 1.0):
        a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        optimizer = torch.optim.SGD([a, b], lr=0.3)
        extrapolation = Extrapolation(optimizer, factor, lambda: 1.0)
        for _ in range(200):
            optimizer.zero_grad()
            with extrapolation.ahead():
                a.grad, b.grad = b.detach().clone(), -a.detach().clone()
            optimizer.step()
            extrapolation.remember()
        far[factor] = float(torch.linalg.vector_norm(torch.cat([a, b]).detach()))
    assert far[0.0] == pytest.approx(2**0.5 * 1.09**100, rel=1e-3)
    assert far[1.0] < 1e-2


@pytest.mark.parametrize(
    ("momentum", "factor", "limit"),
    [
        *((0.0, factor, 2 / (1 + 2 * factor)) for factor in (0.0, 0.5, 1.0, 2.0)),
        # Nesterov's form: where an eigenvalue of the step, a 3 x 3 matrix, reaches 1.
        *((0.9, factor, limit) for factor, limit in ((0.0, 1.357), (0.5, 0.809), (1.0, 0.576))),
    ],
)
def test_the_rate_up_to_which_a_valley_is_stable(
    momentum: float, factor: float, limit: float
) -> None:
    # docs/neighbours.md: on a quadratic of curvature 5, by how much 5 * rate may be.
    for share, falls in ((0.95, True), (1.05, False)):
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        rate = share * limit / 5
        optimizer = torch.optim.SGD([weight], lr=rate, momentum=momentum, nesterov=momentum > 0)
        extrapolation = Extrapolation(optimizer, factor, lambda: 1.0)
        for _ in range(300):
            optimizer.zero_grad()
            with extrapolation.ahead():
                (5 * weight.square() / 2).sum().backward()
            optimizer.step()
            extrapolation.remember()
        assert (abs(float(weight.detach())) < 1e-2) == falls


def test_the_weights_are_back_bit_for_bit_whatever_happens_ahead() -> None:
    weight = torch.nn.Parameter(torch.randn(50))
    optimizer = torch.optim.SGD([weight], lr=0.123)
    extrapolation = Extrapolation(optimizer, 1.0, lambda: 3.0)
    weight.grad = torch.randn(50)
    extrapolation.remember()
    before, gradient = weight.detach().clone(), weight.grad.clone()
    with pytest.raises(ZeroDivisionError), extrapolation.ahead():
        torch.testing.assert_close(weight.detach(), before - 3 * 0.123 * gradient)
        raise ZeroDivisionError
    assert torch.equal(weight, before)


@pytest.mark.parametrize("after", [3, 9])  # 8 steps an epoch: in the first, and in the second
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, after: int) -> None:
    config = TrainConfig(
        data="synthetic:80,1,8,8,4", model="cnn:4", policy="full", epochs=2, batch_size=10,
        warmup_epochs=0, extrapolation=1.0,
    )  # fmt: skip
    whole, resumed = stopped_and_resumed(config, tmp_path, after)
    assert same_weights(whole, resumed)
    past = whole.train_step.state_dict()["past"]
    assert len(past) == len(list(whole.model.parameters()))


def test_a_negative_factor_is_refused() -> None:
    for factor in (-1.0, float("nan")):
        with pytest.raises(InputError, match="extrapolation=.* must not be negative"):
            TrainConfig(extrapolation=factor).check()
