"""The fine histogram and its k-means against a sort and against loops over samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hvdfilter.policies.histogram import Histogram, histogram, kmeans
from tests.agreement.worlds import run_world
from tests.policies.views import few, losses, view_of


def groups_by_hand(values: list[float], groups: int) -> list[int]:
    """Lloyd's iteration over single samples, from groups of equal count of the sorted values."""
    order = sorted(set(values))
    below = {x: sum(v < x for v in values) + sum(v == x for v in values) // 2 for x in order}
    group = {x: below[x] * groups // len(values) for x in order}
    for _ in range(100):
        used = sorted(set(group.values()))
        members = [[v for v in values if group[v] == g] for g in used]
        centres = [math.fsum(m) / len(m) for m in members]
        # The nearest centre, of two equally near ones the larger: told by the middle between two,
        # since distances that are equal may be rounded to unequal ones (3.5 from 1.8 and from 5.2).
        moved = {x: sum(x >= (a + b) / 2 for a, b in itertools.pairwise(centres)) for x in order}
        for x, g in moved.items():
            assert abs(x - centres[g]) <= min(abs(x - c) for c in centres) + 1e-12
        if moved == group:
            break
        group = moved
    used = sorted(set(group.values()))
    return [used.index(group[v]) for v in values]


@few
@example([0, 0, 8, 14, 14, 15, 20, 23, 23, 23, 24, 24, 28], 3)  # 14 / 4 is as near to both
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 10))
def test_groups_are_those_of_the_plain_loop(values: list[int], groups: int) -> None:
    # Quarters: exact in binary, so that the order of a sum cannot matter at a cut.
    column = np.array(values) / 4
    distinct, where, counts = np.unique(column, return_inverse=True, return_counts=True)
    group = kmeans(Histogram(counts, distinct, where), groups)[where]
    assert group.tolist() == groups_by_hand(column.tolist(), groups)


def test_groups_of_a_spread_column_are_near_the_best() -> None:
    # Four planted clusters, far apart: whatever the start, they must be found.
    rng = np.random.default_rng(0)
    centre = np.array([0.01, 1.0, 3.0, 9.0])
    planted = rng.integers(0, 4, 4000)
    column = (centre[planted] * rng.uniform(0.9, 1.1, 4000)).astype(np.float32)
    found = histogram(view_of({"loss": column}, 0, 1), "loss")
    assert (kmeans(found, 4)[found.where] == planted).all()


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_ranks_of_values_are_those_of_a_sort(scale: float) -> None:
    column = losses(3000, ties=3)["loss"] * np.float32(scale)
    found = histogram(view_of({"loss": column}, 0, 1), "loss")
    below = np.cumsum(found.counts)
    known = np.isfinite(column)
    assert ((found.where == -1) == ~known).all()
    by_sort = np.searchsorted(np.sort(column[known]), column[known], "right")
    off = np.abs(below[found.where[known]] - by_sort)
    assert off.max() <= 0.005 * 3000  # two of the rounded losses may share a bin
    assert np.abs(found.values[found.where[known]] - column[known]).max() < 0.01


def test_the_same_on_any_number_of_ranks() -> None:
    columns = losses(999, ties=None)
    whole = histogram(view_of(columns, 0, 1), "loss")
    for size in (2, 3, 4):
        parts = run_world(size, lambda c: histogram(view_of(columns, 0, 1, collective=c), "loss"))
        assert np.array_equal(np.concatenate([p.where for p in parts]), whole.where)
        for part in parts:
            assert np.array_equal(part.counts, whole.counts)
            assert np.array_equal(part.values, whole.values)
            assert np.array_equal(kmeans(part, 7), kmeans(whole, 7))


def test_nothing_observed() -> None:
    found = histogram(view_of({"loss": np.full(9, np.inf, np.float32)}, 0, 1), "loss")
    assert found.counts.size == 0 and (found.where == -1).all() and kmeans(found, 3).size == 0
