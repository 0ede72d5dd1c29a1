"""The largest keys of all ranks, by sums over ranks alone: for a policy that has to know its cut.

`select` does the same for the agreement, with its arguments checked and a rank's error shared;
here a policy that is planning has only `View.total` and `View.before`, and may want ties to be
decided by chance. It makes no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import radix
from hvdfilter.agreement.reference import order_bits
from hvdfilter.agreement.select import EVERYTHING, crossing

Sum = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def largest(
    keys: NDArray[np.float32],
    keep: NDArray[np.int64],
    groups: NDArray[Any],
    total: Sum,
    before: Sum,
    ties: NDArray[np.float32] | None = None,
) -> NDArray[np.bool_]:
    """Which of this rank's keys are among the ``keep[g]`` largest of their group; collective.

    keys: float32 [n]. keep: int64 [G]. groups: integers [n] in [0, G). total, before: sum over all
    ranks and over those below this one. ties: float32 [n], decides between equal keys; by id
    without. Three allreduces of G histograms and a scan, twice that with ties.
    """
    keys = np.ascontiguousarray(keys, np.float32)
    groups = np.ascontiguousarray(groups, np.int32)
    thresholds, rest, tied = _thresholds(keys, keep, groups, total)
    if ties is None:
        below = before(tied)
        rest = np.where(rest == EVERYTHING, rest, rest - below)
        return radix.emit(keys, thresholds, rest, groups, None)
    above = radix.emit(keys, thresholds, np.where(rest == EVERYTHING, rest, 0), groups, None)
    level = ~above & (order_bits(keys) == thresholds[groups])
    wanted = np.append(np.where(rest == EVERYTHING, 0, rest), 0)
    among = np.where(level, groups, keep.size)
    return above | largest(ties, wanted, among, total, before)


def _thresholds(
    keys: NDArray[np.float32], keep: NDArray[np.int64], groups: NDArray[np.int32], total: Sum
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """By group: the key at the cut as ordered bits, how many of that key to take (everything where
    the budget covers the group), and how many this rank has."""
    everyone, rest = np.arange(keep.size), keep.astype(np.int64)
    covered_at_all = np.zeros(keep.size, np.bool_)
    thresholds, tied = np.zeros(keep.size, np.uint32), np.zeros(keep.size, np.int64)
    children: list[NDArray[np.int32]] = []
    for level, width in enumerate(radix.WIDTHS):
        local = radix.count(keys, level, groups, children, keep.size, None)
        digit, rest, covered = crossing(total(local), rest)
        if level == 0:
            covered_at_all = covered
        thresholds |= digit.astype(np.uint32) << np.uint32(radix.SHIFTS[level])
        child = np.full((keep.size, width), -1, np.int32)
        child[everyone, digit] = everyone
        children.append(child)
        tied = local[everyone, digit]
    thresholds[covered_at_all] = 0
    rest[covered_at_all] = EVERYTHING
    return thresholds, rest, tied
