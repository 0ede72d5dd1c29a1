"""Rows of observations in host memory: appended call by call, taken all at once.

Copying a batch costs less than keeping its tensors: what is kept can't be used for the next batch,
and Python's garbage collector would look at it again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.repeats import average_repeats

# (ids, columns): those of several calls, in order, each sample of a call once.
Piece = tuple[NDArray[np.int64], list[NDArray[Any]]]


class HostRows:
    """Columns that grow: ids, then values of these dtypes."""

    def __init__(self, dtypes: Sequence[Any]) -> None:
        self._dtypes = (np.int64, *dtypes, np.bool_)
        self._columns: list[NDArray[Any]] = [np.empty(0, kind) for kind in self._dtypes]
        self._calls: list[int] = []
        self.rows = 0

    def append(
        self, ids: NDArray[Any], columns: Sequence[NDArray[Any]], seen: NDArray[Any] | None
    ) -> None:
        """Copy one call's rows; `seen` is 0 where a row is not to count."""
        start, stop = self.rows, self.rows + ids.size
        if stop > self._columns[0].size:
            self._grow(stop)
        own_ids, *own_columns, own_seen = self._columns
        own_ids[start:stop] = ids
        for own, column in zip(own_columns, columns, strict=True):
            own[start:stop] = column
        own_seen[start:stop] = True if seen is None else seen != 0
        self._calls.append(ids.size)
        self.rows = stop

    def take(self) -> Piece:
        """All rows that count, and none are left."""
        ids, *values, seen = (column[: self.rows] for column in self._columns)
        piece = settle(ids, values, self._calls, seen)
        self._columns = [np.empty(0, kind) for kind in self._dtypes]
        self._calls, self.rows = [], 0
        return piece

    def _grow(self, rows: int) -> None:
        capacity = max(2 * rows, 1024)
        for at, column in enumerate(self._columns):
            wider = np.empty(capacity, column.dtype)
            wider[: self.rows] = column[: self.rows]
            self._columns[at] = wider


def settle(
    ids: NDArray[Any], values: list[NDArray[Any]], calls: list[int], seen: NDArray[Any] | None
) -> Piece:
    """The rows that were seen, those of one sample in one call as their mean."""
    call = np.repeat(np.arange(len(calls), dtype=np.int32), calls)
    if seen is not None and not (kept := seen != 0).all():
        ids, call, values = ids[kept], call[kept], [column[kept] for column in values]
    return average_repeats(ids.astype(np.int64, copy=False), values, call)
