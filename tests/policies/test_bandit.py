"""Epsilon-greedy and UCB against a sort of all samples, and what exploring does over epochs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.views import Columns, few, plan, plan_everywhere, some_of

RATINGS = some_of(-1.0, 0.0, 0.25, 0.5, 2.0, math.inf)


def columns_of(mean: list[float]) -> Columns:
    times = (np.arange(len(mean)) * 7 % 5 + 1) * np.isfinite(mean)
    return {"loss_mean": np.array(mean, np.float32), "observations": times.astype(np.uint16)}


def budget_by_hand(keep: float, seen: int) -> int:
    return max(1, math.ceil(round(keep * seen, 6)))


@few
@given(RATINGS, st.floats(0.05, 1), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 9))
def test_epsilon_greedy_keeps_the_highest_and_some_others(
    mean: list[float], keep: float, epsilon: float, epoch: int
) -> None:
    policy = make("epsilon-greedy", keep=keep, epsilon=epsilon)
    found = plan_everywhere(policy, columns_of(mean), epoch, 10)
    seen = [i for i in range(len(mean)) if math.isfinite(mean[i])]
    kept = set(np.flatnonzero(found.kept).tolist())
    assert {i for i in range(len(mean)) if not math.isfinite(mean[i])} <= kept
    if not seen:
        return
    total = budget_by_hand(keep, len(seen))
    explored = math.floor(round(epsilon * total, 6))
    by_mean = sorted(seen, key=lambda i: (-mean[i], i))
    assert set(by_mean[: total - explored]) <= kept
    assert len(kept & set(seen)) == total
    assert (found.weight[found.kept] == 1).all() and found.repeats.max() == 1


def test_exploring_is_uniform_over_what_is_not_among_the_highest() -> None:
    # 900 epochs, 20 of the 120 others each: counts are Binomial(900, 1/6), mean 150, deviation
    # 11.2; the largest of 120 is beyond 5 deviations once in 14,000 tests.
    rng = np.random.default_rng(0)
    columns = {"loss_mean": rng.permutation(200).astype(np.float32)}
    policy = make("epsilon-greedy", keep=0.5, epsilon=0.2)
    counts = sum(plan(policy, columns, e, 900).kept.astype(int) for e in range(900))
    highest = columns["loss_mean"] >= 120
    assert (counts[highest] == 900).all()
    assert np.abs(counts[~highest] - 150).max() < 56


@few
@given(RATINGS, st.floats(0.05, 1), st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 9))
def test_ucb_keeps_the_highest_bounds(mean: list[float], keep: float, c: float, epoch: int) -> None:
    columns = columns_of(mean)
    found = plan_everywhere(make("ucb", keep=keep, c=c), columns, epoch, 10)
    seen = [i for i in range(len(mean)) if math.isfinite(mean[i])]
    times = columns["observations"].tolist()
    bound = {i: np.float32(mean[i] + c * math.sqrt(math.log(epoch + 1) / times[i])) for i in seen}
    by_bound = sorted(seen, key=lambda i: (-bound[i], i))
    expected = set(by_bound[: budget_by_hand(keep, len(seen))]) if seen else set()
    unseen = set(range(len(mean))) - set(seen)
    assert set(np.flatnonzero(found.kept).tolist()) == expected | unseen


def test_the_bound_of_ucb_grows_from_the_first_epoch_on() -> None:
    # ln(1) = 0: in epoch 0 the higher mean wins, later the sample observed once.
    columns = {
        "loss_mean": np.array([1, 0.5], np.float32),
        "observations": np.array([100, 1], "u2"),
    }
    kept = [plan(make("ucb", keep=0.5), columns, epoch, 9).kept.tolist() for epoch in (0, 1)]
    assert kept == [[True, False], [False, True]]


def test_ucb_comes_back_to_what_was_left_out() -> None:
    # Constant losses, half of them lower by 0.4: left out at first, trained again as the bound of
    # the others shrinks with every observation; with c = 0 never.
    n, loss = 40, np.repeat([1.0, 0.6], 20).astype(np.float32)
    for c, returns in ((1.0, True), (0.0, False)):
        times = np.ones(n, np.uint16)
        low = 0
        for epoch in range(1, 40):
            columns = {"loss_mean": loss, "observations": times}
            kept = plan(make("ucb", keep=0.5, c=c), columns, epoch, 40).kept
            assert kept.sum() == 20
            low += int(kept[20:].sum())
            times = times + kept.astype(np.uint16)
        assert (low > 0) == returns
        assert (times[:20] > times[20:]).all()


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("epsilon-greedy", {"keep": 0.0}, r"policy 'epsilon-greedy': keep=0.0 must be a fraction"),
        ("epsilon-greedy", {"epsilon": 1.1}, r"epsilon=1.1 must be a fraction in \[0, 1\]"),
        ("ucb", {"keep": 2.0}, "policy 'ucb': keep=2.0 must be a fraction"),
        ("ucb", {"c": -1.0}, "policy 'ucb': c=-1.0 must be a finite number, 0 or more"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make(name, **options)
