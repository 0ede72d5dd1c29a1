"""The budget by a fake clock: a machine whose epochs take what the model says, and others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hvdfilter.agreement import SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.policies import Limited, Policy, View, make
from hvdfilter.training.budget import Budget, trains_everything
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.pace import Epoch, Pace
from tests.agreement.worlds import ThreadCollective, run_world

N = 1000
TRAIN, FORWARD, REST, SAVE = 4e-3, 1e-3, 0.5, 0.1  # an epoch in full takes 4.5 s and its checkpoint


class Place:
    """What a budget needs of a World."""

    def __init__(self, collective: Any) -> None:
        self.collective, self.rank = collective, collective.rank


class Machine:
    """Runs epochs on a clock of its own.

    hides: what the policy hides of a share it may hide. slow: factor of an epoch's work.
    """

    def __init__(
        self,
        policy: Policy,
        seconds: float,
        epochs: int,
        options: dict[str, Any] | None = None,
        collective: Any = None,
        hides: Callable[[float], float] = lambda share: share,
        slow: Callable[[int], float] = lambda epoch: 1.0,
    ) -> None:
        self.now, self.epochs, self.hides, self.slow = 100.0, epochs, hides, slow
        self.policy = policy
        config = TrainConfig(
            epochs=epochs, budget_seconds=seconds, policy_options=options or {}, warmup_epochs=0
        )
        place = Place(collective or SoloCollective())
        self.budget = Budget(config, policy, N, place, 100.0, lambda: self.now)  # type: ignore[arg-type]
        self.said: list[dict[str, Any]] = []
        self.kept: list[int] = []

    def run(self, until: int | None = None) -> None:
        for epoch in range(len(self.said), self.epochs if until is None else until):
            share = self.hides(1 - self.budget.policy.share.keep)
            if trains_everything(self.policy, epoch, self.epochs):
                share = 0.0
            hidden = int(N * share)
            factor = self.slow(epoch)
            training = TRAIN * (N - hidden) * factor
            rescoring = FORWARD * hidden * factor if self.policy.rescores else 0.0
            saving = SAVE if epoch else 0.0  # the checkpoint of the epoch before
            seconds = {"total": training + rescoring + REST + saving, "training": training}
            seconds |= {"rescoring": rescoring} if rescoring else {}
            seconds |= {"checkpoint": saving} if saving else {}
            self.now += training + rescoring + REST + saving
            record = {"epoch": epoch, "kept": N - hidden, "hidden": hidden, "seconds": seconds}
            self.said.append(self.budget.end_epoch(record))
            self.kept.append(N - hidden)
        self.now += SAVE

    @property
    def taken(self) -> float:
        return self.now - 100.0


IN_FULL = 20 * (TRAIN * N + REST + SAVE)


@pytest.mark.parametrize("policy", ["random", "loss"])  # without and with a re-scoring pass
@pytest.mark.parametrize("part", [0.5, 0.7, 0.95])
def test_ends_on_time_where_epochs_take_what_they_took(policy: str, part: float) -> None:
    machine = Machine(make(policy), part * IN_FULL, 20, {"keep": 0.1})
    machine.run()
    assert machine.taken == pytest.approx(part * IN_FULL, rel=0.01)
    assert machine.kept[0] == N and not any("warning" in said for said in machine.said)
    # By hand, where nothing is re-scored: the seconds left for 19 epochs, less what is fixed.
    left = part * IN_FULL - (TRAIN * N + REST) - 19 * (REST + SAVE) - SAVE
    if policy == "random":
        assert machine.kept[-1] == pytest.approx(left / 19 / TRAIN, abs=10)
    # The first prediction knows no checkpoint and no forward pass yet, and is near all the same.
    assert abs(machine.said[-1]["error"]) < 0.1
    assert machine.said[-1]["error"] == pytest.approx(
        machine.said[0]["predicted"] / machine.taken - 1, abs=1e-9
    )


def test_a_budget_that_is_no_limit_hides_nothing() -> None:
    machine = Machine(make("random"), 2 * IN_FULL, 20)
    machine.run()
    assert machine.kept == [N] * 20
    assert machine.said[3]["predicted"] == pytest.approx(machine.taken)


def test_a_budget_that_cannot_be_met_says_so_once_and_goes_on() -> None:
    machine = Machine(make("random"), 0.2 * IN_FULL, 20)
    machine.run()
    assert machine.kept == [N] + [3 * N // 10] * 19
    assert [("warning" in said) for said in machine.said] == [True] + [False] * 19
    # After the first epoch no checkpoint is known: 4.5 s, and 19 epochs of 1.7 s.
    assert machine.said[0]["warning"].startswith(
        "the budget of 18.4 s cannot be met: at the smallest share allowed, 30% of the samples, "
        "training would end after 36.8 s"
    )


@pytest.mark.parametrize(
    ("options", "least"), [({"keep": 0.6}, 0.6), ({"class_floor": 0.4}, 0.4), ({}, 0.3)]
)
def test_the_smallest_share_is_the_policys_own(options: dict, least: float) -> None:
    machine = Machine(make("random", **options), 1.0, 5, options)
    machine.run()
    assert machine.kept[1:] == [pytest.approx(N * least, abs=1)] * 4


@pytest.mark.parametrize(
    ("hides", "slow"),
    [
        (lambda share: 0.6 * share, lambda epoch: 1.0),  # keeps more than it is asked to
        (lambda share: share, lambda epoch: 1.5 if epoch >= 8 else 1.0),  # a slower node
        (lambda share: share, lambda epoch: 3.0 if epoch in (0, 6, 11) else 1.0),  # hiccups
    ],
)
def test_follows_a_machine_and_a_policy_that_change(hides: Callable, slow: Callable) -> None:
    machine = Machine(make("random"), 0.7 * IN_FULL, 20, hides=hides, slow=slow)
    machine.run()
    assert machine.taken == pytest.approx(0.7 * IN_FULL, rel=0.03)


def test_warm_up_and_annealing_are_counted_in_full() -> None:
    policy = make("random", warmup=3, anneal=0.2)
    machine = Machine(policy, 0.8 * IN_FULL, 20)
    machine.run()
    assert [kept == N for kept in machine.kept] == [True] * 3 + [False] * 13 + [True] * 4
    assert machine.taken == pytest.approx(0.8 * IN_FULL, rel=0.01)
    own = make("kakurenbo", warmup=2, noise_guard=0.1)
    assert [trains_everything(own, epoch, 9) for epoch in range(4)] == [True, True, False, False]


def test_resumes_with_what_is_left() -> None:
    whole = Machine(make("loss"), 0.6 * IN_FULL, 20)
    whole.run()
    cut = Machine(make("loss"), 0.6 * IN_FULL, 20)
    cut.run(until=7)
    state = json.loads(json.dumps(cut.budget.state()))
    again = Machine(make("loss"), 0.6 * IN_FULL, 20)
    again.now += 1000.0  # a clock of another machine
    again.budget = Budget(
        TrainConfig(epochs=20, budget_seconds=0.6 * IN_FULL),
        again.policy,
        N,
        Place(SoloCollective()),  # type: ignore[arg-type]
        again.now,
        lambda: again.now,
    )
    again.budget.restore(state)
    again.said, again.kept = list(cut.said), list(cut.kept)
    again.run()
    # The checkpoint that it was cut off at counts to both.
    assert again.kept == pytest.approx(whole.kept, abs=10)
    assert again.said[-1]["elapsed"] == pytest.approx(whole.said[-1]["elapsed"], abs=0.1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_all_ranks_decide_as_rank_0_does(ranks: int) -> None:
    def body(collective: ThreadCollective) -> tuple[list[int], list[dict[str, Any]]]:
        # The others measure quite different times.
        slow = 1.0 + collective.rank
        machine = Machine(
            make("random"), 0.6 * IN_FULL, 8, collective=collective, slow=lambda epoch: slow
        )
        machine.run()
        return machine.kept, machine.said

    found = run_world(ranks, body)
    assert found == [found[0]] * ranks
    alone = Machine(make("random"), 0.6 * IN_FULL, 8)
    alone.run()
    assert found[0][0] == alone.kept


def test_a_pass_as_dear_as_training_saves_nothing() -> None:
    same = [Epoch(5.0, 4.0, 0.0, N, 0, 0.0), Epoch(5.0, 2.0, 2.0, N // 2, N // 2, 0.5)]
    pace = Pace(20.0, 10, N, 0.1, True, lambda epoch: False, same)
    decision = pace.decide(10.0, 0.0)
    assert not decision.met and decision.predicted == pytest.approx(10 + 8 * 5)


def test_what_cannot_be_paced_is_refused() -> None:
    config = TrainConfig(budget_seconds=5.0)
    place = Place(SoloCollective())
    for policy, sentence in (
        (make("full"), "budget_seconds needs a policy with the option keep, which 'full' has not"),
        (make("random", fraction="cosine"), "so does fraction='cosine': give one of them"),
    ):
        with pytest.raises(InputError, match=sentence):
            Budget(config, policy, N, place, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_time(seconds: float) -> None:
    with pytest.raises(InputError, match="budget_seconds=.* must be positive"):
        TrainConfig(budget_seconds=seconds).check()


def test_the_share_reaches_the_policy_within_its_limits() -> None:
    policy = Limited(make("random"), class_floor=0.2)
    machine = Machine(policy, 9.0, 3)
    machine.run(until=2)
    labels = np.zeros(N, np.int64)
    view = View(2, 3, N, 0, N, 0, {}.__getitem__, {}.__getitem__, {}.__getitem__, labels)
    keep = machine.said[-1]["keep"]
    assert 0.2 <= keep < 1
    assert machine.budget.policy.plan(view).keep == N - int(round((1 - keep) * N, 6))
    assert "share" not in repr(machine.budget.policy)  # by which a saved run is recognised
