"""How much is hidden as epochs go by: annealing, warm-up, and the schedules of the hidden share."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from hvdfilter.policies import Limited, make
from tests.policies.limited_cases import RANKS, Toy, columns_of, outcome


@pytest.mark.parametrize(("epochs", "annealed"), [(30, 4), (90, 12), (100, 13), (8, 1), (7, 1)])
def test_annealing_is_exact_at_any_number_of_epochs(epochs: int, annealed: int) -> None:
    # 0.125 of 30, 90 and 100 epochs is 3.75, 11.25 and 12.5; the weights of the policy end with it.
    columns = columns_of(20)
    policy = make("tests.policies.limited_cases:Toy", form="coin", keep=0.3, anneal=0.125)
    for epoch in range(epochs):
        found = outcome(policy, columns, 1, epoch, epochs)
        everything = epoch >= epochs - annealed
        assert found.kept.all() == everything
        assert (found.weight == 1).all() == everything


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_annealing_counts_whole_epochs_whole(share: float) -> None:
    # 0.1 * 30 and 0.7 * 90 in binary are not whole, and must not become one epoch more.
    for epochs in (10, 30, 90, 100):
        exact = math.ceil(Fraction(str(share)) * epochs)
        policy = Limited(Toy(), anneal=share)
        full = [policy.trains_everything(epoch, epochs) for epoch in range(epochs)]
        assert full == [False] * (epochs - exact) + [True] * exact


def test_warm_up_trains_everything_at_weight_one() -> None:
    columns = columns_of(20)
    policy = Limited(Toy("coin", keep=0.3), warmup=2)
    found = [outcome(policy, columns, 2, epoch) for epoch in range(3)]
    assert [f.kept.all() and (f.weight == 1).all() for f in found] == [True, True, False]


def hidden(schedule: str, epoch: int, epochs: int, ranks: int = 1, keep: float = 0.6) -> int:
    policy = make("random", keep=keep, fraction=schedule)
    return int((~outcome(policy, columns_of(1000), ranks, epoch, epochs).kept).sum())


def test_steps_hide_their_share_from_their_start_on() -> None:
    found = [hidden("steps:0.3@0.1,0.5@0.33,0@0.9", epoch, 100) for epoch in range(100)]
    assert found == [0] * 10 + [300] * 23 + [500] * 57 + [0] * 10


@pytest.mark.parametrize("epochs", [1, 2, 5, 30])
def test_cosine_falls_to_nothing(epochs: int) -> None:
    found = [hidden("cosine", epoch, epochs) for epoch in range(epochs)]
    by_hand = [
        400 * (1 + math.cos(math.pi * e / (epochs - 1))) / 2 if epochs > 1 else 400
        for e in range(epochs)
    ]
    assert all(math.floor(x + 1e-6) == n for x, n in zip(by_hand, found, strict=True))
    assert found[0] == 400 and (epochs == 1 or found[-1] == 0)


@pytest.mark.parametrize("ranks", RANKS)
def test_accuracy_hides_in_proportion_to_what_is_correct(ranks: int) -> None:
    correct = int(columns_of(1000)["correct"].sum())
    assert hidden("accuracy", 3, 10, ranks) == 400 * correct // 1000
    assert hidden("constant", 3, 10, ranks) == 400
