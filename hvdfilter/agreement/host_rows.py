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
    """Columns that grow, in chunks that are never copied: ids, then values of these dtypes."""

    def __init__(self, dtypes: Sequence[Any]) -> None:
        self._dtypes = (np.int64, *dtypes, np.bool_)
        self._start()

    def _start(self) -> None:
        self._full: list[list[NDArray[Any]]] = []
        self._chunk: list[NDArray[Any]] = [np.empty(0, kind) for kind in self._dtypes]
        self._used, self._capacity = 0, 0
        self._calls: list[int] = []
        self.rows = 0

    def append(
        self, ids: NDArray[Any], columns: Sequence[NDArray[Any]], seen: NDArray[Any] | None
    ) -> None:
        """Copy one call's rows; `seen` is 0 where a row is not to count."""
        count = ids.size
        if self._used + count > self._capacity:
            self._grow(count)
        start, stop = self._used, self._used + count
        chunk = self._chunk
        chunk[0][start:stop] = ids
        for own, column in zip(chunk[1:-1], columns, strict=True):
            own[start:stop] = column
        chunk[-1][start:stop] = True if seen is None else seen != 0
        self._calls.append(count)
        self._used = stop
        self.rows += count

    def take(self) -> Piece:
        """All rows that count, and none are left."""
        chunks = [*self._full, [column[: self._used] for column in self._chunk]]
        ids, *values, seen = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        piece = settle(ids, values, self._calls, seen)
        self._start()
        return piece

    def _grow(self, count: int) -> None:
        if self._used:
            self._full.append([column[: self._used] for column in self._chunk])
        self._capacity = max(2 * self._capacity, count, 1024)
        self._chunk = [np.empty(self._capacity, kind) for kind in self._dtypes]
        self._used = 0


def settle(
    ids: NDArray[Any], values: list[NDArray[Any]], calls: list[int], seen: NDArray[Any] | None
) -> Piece:
    """The rows that were seen, those of one sample in one call as their mean."""
    call = np.repeat(np.arange(len(calls), dtype=np.int32), calls)
    if seen is not None and not (kept := seen != 0).all():
        ids, call, values = ids[kept], call[kept], [column[kept] for column in values]
    return average_repeats(ids.astype(np.int64, copy=False), values, call)
