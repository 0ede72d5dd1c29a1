"""A column over all ranks as one fine histogram: ranks of values and groups of them, no sort.

Bins are equal stretches of the order of the floats between the smallest and the largest, so they
are fine where values are small and an outlier costs nothing. Counts are integers, so all that is
made of them is the same on any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.reference import order_bits
from hvdfilter.agreement.statistics import from_order_bits
from hvdfilter.policies.base import View

_BINS = 1 << 16


@dataclass(frozen=True)
class Histogram:
    """The finite values of a column over all ranks.

    counts: int64 [B], samples of all ranks in each bin that has any. values: float64 [B], the
    middle of each of those bins, ascending. where: int64 [n], the bin of each of this rank's
    samples, -1 for a value that is not finite.
    """

    counts: NDArray[np.int64]
    values: NDArray[np.float64]
    where: NDArray[np.int64]


def histogram(view: View, name: str) -> Histogram:
    """The histogram of float32 column `name`; collective: two quantiles and a sum of 512 KiB.

    There are 65,536 bins, so each distinct value has its own if the largest is fewer floats than
    that above the smallest; else values within about a thousandth of each other may share one.
    """
    column = np.ascontiguousarray(view.column(name), np.float32)
    known = np.isfinite(column)
    ends = view.quantiles(name, (0.0, 1.0))
    if np.isnan(ends).any():
        nothing = np.zeros(0, np.int64)
        return Histogram(nothing, nothing.astype(np.float64), np.full(column.size, -1, np.int64))
    low, high = (int(bits) for bits in order_bits(np.asarray(ends, np.float32)))
    span = high - low + 1
    bins = min(_BINS, span)
    where = np.full(column.size, -1, np.int64)
    where[known] = (order_bits(column[known]).astype(np.int64) - low) * bins // span
    counts = view.total(np.bincount(where[known], minlength=bins))
    used = np.flatnonzero(counts)
    middle = low + (used * span + span // 2) // bins
    place = np.cumsum(counts > 0) - 1
    return Histogram(
        counts=counts[used],
        values=from_order_bits(middle.astype(np.uint32)).astype(np.float64),
        where=np.where(known, place[np.maximum(where, 0)], -1),
    )


def kmeans(found: Histogram, groups: int, rounds: int = 100) -> NDArray[np.int64]:
    """The group of each bin, 0 the smallest values: 1-D k-means by Lloyd's iteration; int64 [B].

    It starts from groups of equal count. A group that loses all its bins stays empty: the groups
    are numbered without gaps, so there may be fewer of them.
    """
    weight = np.concatenate([[0], np.cumsum(found.counts)])
    moment = np.concatenate([[0.0], np.cumsum(found.counts * found.values)])
    middle = weight[:-1] + found.counts // 2
    group = middle * groups // max(1, int(weight[-1]))
    for _ in range(rounds):
        edges = np.searchsorted(group, np.arange(groups + 1))
        edges = np.unique(edges)
        centres = np.diff(moment[edges]) / np.diff(weight[edges])
        cuts = (centres[1:] + centres[:-1]) / 2
        moved = np.searchsorted(cuts, found.values, "right").astype(np.int64)
        if np.array_equal(moved, group):
            break
        group = moved
    return np.unique(group, return_inverse=True)[1].reshape(-1)
