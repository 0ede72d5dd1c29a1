"""The rows of a score book that an exchange touches: which observation counts, and what was before.

Row arithmetic only; it never communicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Rows(Mapping[str, NDArray[Any]]):
    """Some rows of the columns, fetched when a rule asks: most rules look at few, or at none."""

    def __init__(self, columns: dict[str, NDArray[Any]], at: NDArray[np.int64]) -> None:
        self._columns = columns
        self._at = at
        self._fetched: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._fetched:
            self._fetched[name] = self._columns[name][self._at]
        return self._fetched[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def last_of_each(at: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where each distinct value of ``at``, all in ``[0, length)``, stands for the last time."""
    if at.size < length // 8:  # a table of the whole block would cost more than the columns
        order = np.argsort(at, kind="stable")
        ends = np.append(at[order[1:]] != at[order[:-1]], True)
        return order[ends]
    line = np.arange(at.size)
    last = np.empty(length, np.int32 if at.size < 1 << 31 else np.int64)
    last[at] = line  # NumPy assigns in order, so the last of several stays
    return np.flatnonzero(last[at] == line)
