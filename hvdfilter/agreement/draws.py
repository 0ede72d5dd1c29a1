"""Draws: how often each sample is drawn in an epoch, in a few bits a sample.

The counts are held in binary: a sample of plane b is drawn 2^b times for it, so that a place among
all draws is found without an array of them. It shuffles nothing and knows no rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.mask import KeepMask
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.select import merge
from hvdfilter.errors import InputError


class Draws:
    """An immutable multiset of samples; ``len(planes) * ceil(num_samples / 8)`` bytes.

    planes: `KeepMask` of the samples whose count has bit b set, b = 0, 1, ...

    `count` draws are numbered plane by plane; `nth` gives the samples of draw numbers, as
    `KeepMask.nth` does where none is drawn twice.
    """

    def __init__(self, planes: Sequence[KeepMask]) -> None:
        if len({plane.num_samples for plane in planes}) != 1:
            raise InputError("draws need one plane or more, all of as many samples")
        self.planes = tuple(planes)
        self.num_samples = self.planes[0].num_samples
        sizes = [plane.count << bit for bit, plane in enumerate(self.planes)]
        self._first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    @property
    def count(self) -> int:
        """How many draws there are."""
        return int(self._first[-1])

    @cached_property
    def mask(self) -> KeepMask:
        """The samples that are drawn at all."""
        return reduce(or_, self.planes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of the planes, in hex."""
        joined = bytes.fromhex("".join(plane.digest for plane in self.planes))
        return hashlib.sha256(joined).hexdigest()

    def nth(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of draw numbers in ``[0, count)``, int64."""
        plane = np.searchsorted(self._first, numbers, side="right") - 1
        ids = np.empty(numbers.shape, np.int64)
        for bit, mask in enumerate(self.planes):
            mine = plane == bit
            ids[mine] = mask.nth((numbers[mine] - self._first[bit]) >> bit)
        return ids

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids in ``[start, stop)``, each as often as it is drawn, and the numbers of the draws."""
        ids, numbers = [], []
        for bit, mask in enumerate(self.planes):
            kept = mask.kept_ids(start, stop)
            before = mask.count_between(0, start)
            first, times = int(self._first[bit]) + (before << bit), 1 << bit
            ids.append(np.repeat(kept, times))
            numbers.append(np.arange(first, first + kept.size * times))
        return np.concatenate(ids), np.concatenate(numbers)


def merge_draws(repeats: NDArray[np.int64], blocks: Blocks, collective: Collective) -> Draws:
    """The draws of all ranks' blocks, on every rank; collective.

    repeats: int64 [n], not negative, how often each sample of this rank's block is drawn. A rank
    sends ``num_samples / 8 / size`` bytes for each bit of the largest count of all.
    """
    most = int(collective.allreduce(np.array([repeats.max(initial=0)], np.int64), "max")[0])
    planes = range(max(1, most.bit_length()))
    return Draws([merge((repeats >> bit & 1) == 1, blocks, collective) for bit in planes])
