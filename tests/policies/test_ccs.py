"""CCS against the authors' algorithm as plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import random
from hvdfilter.policies import make
from hvdfilter.policies.ccs import shares
from tests.policies.static_cases import kept, random_columns, score_file_of


def hardness(columns: dict[str, np.ndarray], by: str, i: int) -> float:
    if by == "forgetting":
        return float(columns["forgetting"][i]) if columns["learnt"][i] else math.inf
    return -float(columns["aum"][i]) if by == "aum" else float(columns[by][i])


def by_hand(keys: list[float], dropped: int, keep: int, strata: int, seed: int) -> set[int]:
    """Algorithm 1 of the paper: drop, cut into strata, fill the smallest first."""
    n = len(keys)
    order = sorted(range(n), key=lambda i: (-keys[i], i))
    rest = order[dropped:]
    finite = [keys[i] for i in rest if math.isfinite(keys[i])]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    members: list[list[int]] = [[] for _ in range(strata)]
    for i in rest:
        if math.isinf(keys[i]):
            place = strata - 1 if keys[i] > 0 else 0
        else:
            width = high - low if high > low else 1.0
            place = min(int((keys[i] - low) / width * strata), strata - 1)
        members[place].append(i)
    draw = random.uniform_keys(seed, 0, np.arange(n))
    chosen: set[int] = set()
    left = [m for m in members if m]
    while left:
        smallest = min(left, key=len)
        left.remove(smallest)
        share = min(len(smallest), keep // (len(left) + 1))
        chosen |= set(sorted(smallest, key=lambda i: (-draw[i], i))[:share])
        keep -= share
    return chosen


@pytest.mark.parametrize("by", ["aum", "el2n", "forgetting"])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    n=st.integers(8, 90),
    keep=st.sampled_from([0.1, 0.2, 0.5, 1.0]),
    beta=st.sampled_from([0.0, 0.1, 0.3, 0.95]),
    strata=st.sampled_from([1, 4, 50]),
)
def test_the_choice_is_the_algorithm_s_on_any_number_of_ranks(
    by: str, seed: int, n: int, keep: float, beta: float, strata: int
) -> None:
    columns = random_columns(seed, n, 3)
    columns["observations"][:] = 3
    policy = make("ccs", by=by, keep=keep, beta=beta, strata=strata, opening=3)
    count = max(1, n - math.floor(round((1 - keep) * n, 6)))
    dropped = min(math.floor(round(beta * n, 6)), n - count)
    keys = [hardness(columns, by, i) for i in range(n)]
    expected = by_hand(keys, dropped, count, strata, seed)
    assert len(expected) == count
    for ranks in range(1, 5):
        assert set(np.flatnonzero(kept(policy, columns, n, ranks, seed=seed))) == expected


def test_what_is_left_may_have_no_finite_score() -> None:
    # Four samples were observed, and they are the hardest, which are dropped.
    columns = random_columns(0, 40, 3)
    columns["observations"][:] = 3
    columns["aum"][4:] = np.inf
    policy = make("ccs", by="aum", keep=0.5, beta=0.1, strata=4, opening=3)
    keys = [hardness(columns, "aum", i) for i in range(40)]
    expected = by_hand(keys, 4, 20, 4, seed=1)
    for ranks in (1, 3):
        assert set(np.flatnonzero(kept(policy, columns, 40, ranks, seed=1))) == expected


@pytest.mark.parametrize(
    ("keep", "share"), [(0.8, 0.0), (0.7, 0.0), (0.45, 0.1), (0.2, 0.2), (0.1, 0.3), (0.05, 0.3)]
)
def test_by_default_more_is_dropped_the_more_is_pruned(keep: float, share: float) -> None:
    assert make("ccs", keep=keep).dropped(1000) == round(1000 * share)
    assert make("ccs", keep=keep, beta=0.9).dropped(1000) == round(1000 * min(0.9, 1 - keep))


def test_the_smallest_strata_are_filled_and_pass_on_what_they_cannot_use() -> None:
    # 40 over five: 8 each; the empty one and the one of 3 leave 37 to three, of which one has 10.
    assert shares(np.array([100, 3, 0, 10, 50]), 40).tolist() == [14, 3, 0, 10, 13]


def test_a_score_file_chooses_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    n, labels = 75, np.zeros(75, int)
    columns = random_columns(1, n, 3)
    path = score_file_of(tmp_path / "s.parquet", {"aum": columns["aum"]}, labels)
    policy = make("ccs", keep=0.2, scores=path)
    keys = [hardness(columns, "aum", i) for i in range(n)]
    expected = by_hand(keys, 15, 15, 50, 0)
    for ranks in range(1, 5):
        assert set(np.flatnonzero(kept(policy, {}, n, ranks, epoch=0))) == expected
