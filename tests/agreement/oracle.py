"""Independent answers: a global stable sort, on one process, by (key descending, id ascending)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


def order(keys: NDArray[np.float32]) -> NDArray[np.int64]:
    """Ids by (key descending, id ascending); -0.0 equals 0.0."""
    return np.lexsort((np.arange(keys.size), -keys.astype(np.float64)))


def top(
    keys: NDArray[np.float32], keep: int, weights: NDArray[Any] | None = None
) -> NDArray[np.bool_]:
    """The `keep` first in that order, or the longest beginning whose weight is within `keep`."""
    result = np.zeros(keys.size, bool)
    sequence = order(keys)
    if weights is None:
        result[sequence[:keep]] = True
    else:
        result[sequence[np.cumsum(weights[sequence]) <= keep]] = True
    return result


def top_of_groups(
    keys: NDArray[np.float32],
    groups: NDArray[Any],
    keep: NDArray[Any],
    weights: NDArray[Any] | None = None,
) -> NDArray[np.bool_]:
    """`top` for every group by itself."""
    result = np.zeros(keys.size, bool)
    for group, budget in enumerate(keep):
        mine = np.flatnonzero(groups == group)
        result[mine] = top(keys[mine], int(budget), None if weights is None else weights[mine])
    return result


def mean(values: NDArray[Any]) -> float:
    """Exact mean of the finite values, rounded once."""
    finite = [Fraction(float(v)) for v in values[np.isfinite(values)]]
    return float(sum(finite, Fraction(0)) / len(finite))
