"""Strata: the draws of an epoch dealt round-robin, so that every batch holds its share of each.

A stratified mini-batch varies less than a uniform one by what the strata differ from each other.
Which samples are alike is somebody else's to say; nothing here communicates but `merge_strata`.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import random
from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.draws import Draws
from hvdfilter.agreement.mask import KeepMask

# Codes travel and are held in 16 bits.
MOST = 1 << 16
_STREAM = 0x57A7  # apart from the other random numbers of an epoch


class Strata:
    """An immutable multiset of samples, each of one stratum.

    draws: which samples are drawn, and how often. codes: uint16 [num_samples], the stratum of each;
    those of samples that are not drawn are not looked at.

    In `sequence`, between two draws of a stratum of n lie m / n of another of m, rounded up or
    down: strata of one size are taken in turn. Needs 2 bytes a sample, and 8 a draw for the
    sequence of an epoch (50 while it is made).
    """

    def __init__(self, draws: KeepMask | Draws, codes: NDArray[np.uint16]) -> None:
        self.draws, self.codes = draws, codes
        self.num_samples, self.count = draws.num_samples, draws.count
        self.mask = draws.mask if isinstance(draws, Draws) else draws

    @property
    def digest(self) -> str:
        """SHA-256 over that of the draws and the strata of the samples drawn, in hex."""
        said = hashlib.sha256(bytes.fromhex(self.draws.digest))
        said.update(self.codes[self.mask.kept_ids()].tobytes())
        return said.hexdigest()

    def nth(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of draw numbers in ``[0, count)``, in the order of the draws, not of strata."""
        return self.draws.nth(numbers)

    def sequence(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The samples in the order of the epoch's places, int64 [count]; chance decides the rest.

        Draw j of the n of a stratum, in a random order of them, is due at (j + r) / n of the epoch,
        with one r in [0, 1) for each stratum and epoch.
        """
        draws = self.draws if isinstance(self.draws, Draws) else Draws([self.draws])
        ids = draws.between(0, self.num_samples)[0]
        codes = self.codes[ids]
        chance = random.hash64(seed, epoch, np.arange(ids.size), _STREAM)
        order = np.lexsort((chance, codes))
        ids, codes = ids[order], codes[order].astype(np.int64)
        sizes = np.bincount(codes)
        first = np.cumsum(sizes) - sizes
        begin = random.uniform01(seed, epoch, np.arange(sizes.size), _STREAM + 1)
        due = (np.arange(ids.size) - first[codes] + begin[codes]) / sizes[codes]
        return np.asarray(ids[np.argsort(due, kind="stable")])


def merge_strata(
    draws: KeepMask | Draws, codes: NDArray[np.uint16], collective: Collective
) -> Strata:
    """The strata of all ranks' blocks, on every rank; collective.

    codes: uint16 [n], of this rank's block. A rank sends 2 bytes for each sample it owns.
    """
    return Strata(draws, np.concatenate(collective.allgather(codes)))
