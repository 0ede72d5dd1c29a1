"""Which rank owns which sample: contiguous id blocks cut at whole bytes of the packed mask.

Pure arithmetic on (num_samples, size). It never communicates and holds no per-sample array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError


@dataclass(frozen=True)
class Blocks:
    """Owner blocks of ``num_samples`` ids over ``size`` ranks.

    The mask has ``B = ceil(num_samples / 8)`` bytes; rank r owns bytes
    ``[B r // size, B (r + 1) // size)`` and the ids in them. With more ranks than bytes some blocks
    are empty.
    """

    num_samples: int
    size: int

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise InputError(f"num_samples is {self.num_samples}; it must be at least 1")
        if self.num_samples >= 1 << 48:
            raise InputError(f"num_samples is {self.num_samples}; more than 2^48 are not supported")
        if self.size < 1:
            raise InputError(f"the number of ranks is {self.size}; it must be at least 1")

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole packed mask."""
        return (self.num_samples + 7) // 8

    def first_byte(self, rank: int) -> int:
        """First byte of the packed mask that `rank` owns; of rank ``size``: the end."""
        return self.num_bytes * rank // self.size

    def byte_count(self, rank: int) -> int:
        """How many bytes of the packed mask `rank` owns."""
        return self.first_byte(rank + 1) - self.first_byte(rank)

    def start(self, rank: int) -> int:
        """First id of the block of `rank`."""
        return min(self.num_samples, 8 * self.first_byte(rank))

    def stop(self, rank: int) -> int:
        """One past the last id of the block of `rank`."""
        return min(self.num_samples, 8 * self.first_byte(rank + 1))

    def length(self, rank: int) -> int:
        """How many ids `rank` owns."""
        return self.stop(rank) - self.start(rank)

    def owner(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """The rank that owns each id, int64; ids must lie in ``[0, num_samples)``."""
        byte = np.asarray(ids, np.int64) >> 3
        # the largest r with floor(B r / size) <= byte
        return np.asarray(((byte + 1) * self.size - 1) // self.num_bytes)
