"""Rows of one call that name the same sample: its mean is what was observed.

Tokens or pixels handed over flattened, or several views of one image. Works on the host, for many
calls at once, so that a call of all different ids costs a part of one sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_repeats(
    ids: NDArray[np.int64], columns: Sequence[NDArray[Any]], call: NDArray[np.int32]
) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
    """Ids and columns with the rows of one id within one call replaced by their mean.

    ids: [n]. columns: each [n]. call: [n], the number of each row's call, ascending. A bool column
    is true where more than half of its rows are. The order of the calls is kept, that of the rows
    within one is not; without repeats everything is returned as it came.
    """
    ordered = np.sort(ids)
    if not (ordered[1:] == ordered[:-1]).any():
        return ids, list(columns)
    order = np.lexsort((ids, call))
    fresh = np.ones(ids.size, np.bool_)
    fresh[1:] = (np.diff(ids[order]) != 0) | (np.diff(call[order]) != 0)
    first = np.flatnonzero(fresh)
    if first.size == ids.size:
        return ids, list(columns)
    counts = np.diff(first, append=ids.size)
    means = []
    for column in columns:
        sums = np.add.reduceat(column[order].astype(np.float64), first)
        means.append(
            sums * 2 > counts if column.dtype == np.bool_ else (sums / counts).astype(column.dtype)
        )
    return ids[order][first], means
