"""LocalMask: the block of a keep-mask that one rank owns, for sets too large to hold whole.

A rank keeps its ``num_samples / 8 / size`` bytes and the number of samples every rank keeps; only
those numbers and a checksum travel. It answers for its own block alone.

The digest is three 64-bit numbers in hex, one after the other: ``num_samples``, the number of kept
samples, and the sum over kept ids i of ``mix64(i + 1)`` modulo 2^64 (`hvdfilter.agreement.random`).
Being a sum, it is the same for any number of ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.mask import KeepMask
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.random import mix64

_CHUNK = 1 << 20


class LocalMask:
    """One rank's block of a mask; immutable.

    Attributes:
        num_samples, count, digest: of the whole mask.
        counts: int64 [size], how many samples each rank's block keeps.
        start, stop: the ids of the block.
    """

    def __init__(
        self,
        block: KeepMask | None,
        blocks: Blocks,
        rank: int,
        counts: NDArray[np.int64],
        check: int,
    ) -> None:
        self.num_samples = blocks.num_samples
        self.start, self.stop = blocks.start(rank), blocks.stop(rank)
        self.blocks, self.rank, self.counts = blocks, rank, counts
        self.count = int(counts.sum())
        self.digest = f"{self.num_samples:016x}{self.count:016x}{check:016x}"
        self._block = block  # ids counted from `start`; None where the rank owns nothing

    def numpy(self) -> NDArray[np.bool_]:
        """A new bool array over the block."""
        return np.empty(0, np.bool_) if self._block is None else self._block.numpy()

    def kept_ids(self, start: int | None = None, stop: int | None = None) -> NDArray[np.int64]:
        """Kept ids of the block in ``[start, stop)``, ascending."""
        if self._block is None:
            return np.empty(0, np.int64)
        low = None if start is None else start - self.start
        high = None if stop is None else stop - self.start
        return self._block.kept_ids(low, high) + self.start

    def nth(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """Ids of the block's kept samples at ``positions``, in ``[0, counts[rank])``."""
        if self._block is None:
            return np.empty(0, np.int64)
        return self._block.nth(positions) + self.start

    def contains(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each id is kept; False for ids of other blocks."""
        if self._block is None:
            return np.zeros(np.shape(ids), np.bool_)
        return self._block.contains(np.asarray(ids, np.int64) - self.start)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        own = int(self.counts[self.rank])
        return f"LocalMask({own} of {self.stop - self.start} kept here, {self.count} in all)"


def merge_local(bits: NDArray[np.bool_], blocks: Blocks, collective: Collective) -> LocalMask:
    """The local form of `hvdfilter.agreement.merge`; collective.

    Args:
        bits: bool [n], this rank's block.

    Moves 8 bytes a rank for the counts and one allreduce of 16 bytes for the checksum.
    """
    bits = np.asarray(bits, np.bool_)
    start = blocks.start(collective.rank)
    check = 0
    for at in range(0, bits.size, _CHUNK):
        kept = np.flatnonzero(bits[at : at + _CHUNK]) + (start + at + 1)
        check += int(mix64(kept.astype(np.uint64)).sum(dtype=np.uint64))
    counts = collective.allgather_flat(
        np.array([np.count_nonzero(bits)], np.int64), [1] * collective.size
    )
    # In halves, so that no integer of the allreduce can overflow.
    halves = np.array([check & 0xFFFFFFFF, (check >> 32) & 0xFFFFFFFF], np.int64)
    low, high = (int(half) for half in collective.allreduce(halves))
    block = KeepMask.from_bools(bits) if bits.size else None
    check = (low + (high << 32)) & ((1 << 64) - 1)
    return LocalMask(block, blocks, collective.rank, counts, check)
