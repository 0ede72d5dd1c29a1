"""Messages too large for one call of a back end, cut into rounds in which each pair has its share.

All ranks derive the number of rounds from sizes that all of them know. Nothing is reduced here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[Any]  # uint8, 1-D


class BackEnd(Protocol):
    """What the rounds need of a collective."""

    rank: int
    size: int
    chunk_limit: int

    def _allgatherv(self, data: Bytes, counts: Sequence[int]) -> Bytes: ...

    def _alltoallv(self, data: Bytes, sent: Sequence[int], received: Sequence[int]) -> Bytes: ...


def allgather(end: BackEnd, data: Bytes, sizes: Sequence[int]) -> Bytes:
    """The bytes of all ranks, joined; ``sizes`` are theirs."""
    share = max(1, end.chunk_limit // end.size)
    result = np.empty(sum(sizes), np.uint8)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for begin in range(0, max(sizes), share):
        counts = [min(share, max(0, size - begin)) for size in sizes]
        part = end._allgatherv(data[begin : begin + counts[end.rank]], counts)
        at = 0
        for start, count in zip(starts, counts, strict=True):
            result[start + begin : start + begin + count] = part[at : at + count]
            at += count
    return result


def alltoall(
    end: BackEnd, data: Sequence[Bytes], received: Sequence[int], longest: int
) -> list[Bytes]:
    """The bytes of each source; ``longest`` is the longest part that any rank sends to any."""
    share = max(1, end.chunk_limit // end.size)
    result = [np.empty(n, np.uint8) for n in received]
    for begin in range(0, longest, share):
        out = [part[begin : begin + share] for part in data]
        counts = [min(share, max(0, n - begin)) for n in received]
        flat = end._alltoallv(np.concatenate(out), [part.size for part in out], counts)
        at = 0
        for target, count in zip(result, counts, strict=True):
            target[begin : begin + count] = flat[at : at + count]
            at += count
    return result
