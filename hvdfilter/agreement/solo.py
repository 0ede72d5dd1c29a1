"""The collective back end for one process: every operation is the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hvdfilter.agreement.base import CHUNK_LIMIT, Array, Collective


class SoloCollective(Collective):
    """A world of one: every operation is the identity, no byte moves.

    still_alone: called as a public collective opens; raises where other ranks have appeared.
    """

    name = "solo"

    def __init__(
        self, chunk_limit: int = CHUNK_LIMIT, still_alone: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(0, 1, chunk_limit)
        self._still_alone = still_alone

    def _reduce(self, array: Array, op: str) -> Array:
        return array.copy()

    def _exscan(self, array: Array) -> Array:
        return np.zeros_like(array)

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        return data.copy()

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        return data.copy()

    def _bcast(self, data: Array, root: int) -> Array:
        return data

    def _barrier(self) -> None:
        pass

    def local(self) -> tuple[int, int]:
        """The only rank of its host."""
        return 0, 1

    def _start(self, words: Array) -> _Done:
        self._still_alone()
        return _Done(words)


class _Done:
    """A maximum over one rank."""

    def __init__(self, words: Array) -> None:
        self._words = words

    def done(self) -> bool:
        return True

    def result(self) -> Array:
        return self._words
