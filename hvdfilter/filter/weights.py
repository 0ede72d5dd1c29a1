"""Weights: what a policy multiplies losses with, brought from the owners to who draws the samples.

Owners know by the permutation which rank draws a sample and when, so neither ids nor requests
travel: 4 bytes a draw, or one where the weights are of few kinds. It chooses no weight.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.agreement import Blocks, Collective
from hvdfilter.errors import InputError
from hvdfilter.filter.sampler import ShardSampler

# Weights of no more kinds travel as places in a list of them.
_KINDS = 256


class Weights:
    """The weights of one epoch, those of this rank's draws.

    block: float32 [n], of the samples this rank owns, or None where nothing is weighted: all that
    needs to be saved.
    """

    def __init__(self, blocks: Blocks, collective: Collective) -> None:
        self._blocks, self._collective = blocks, collective
        self.block: NDArray[np.float32] | None = None
        self._known: tuple[Tensor, Tensor] | None = None

    def deliver(self, block: NDArray[np.float32] | None, sampler: ShardSampler) -> None:
        """Collective. Take up the weights of the epoch that `sampler` stands at the start of.

        block: as the attribute; given on all ranks or on none.
        """
        self.block, self._known = block, None
        if block is None:
            return
        rank, size = self._collective.rank, self._collective.size
        start = self._blocks.start(rank)
        ids, places = sampler.placed(start, self._blocks.stop(rank))
        drawer = (places - sampler.offset) % size
        order = np.lexsort((places, drawer))
        values, kinds = block[ids[order] - start], self._kinds(block[ids - start])
        if kinds is not None:
            if kinds.size == 0 or kinds.tolist() == [1.0]:
                return
            values = np.searchsorted(kinds, values).astype(np.uint8)
        parts = np.split(values, np.cumsum(np.bincount(drawer, minlength=size))[:-1])
        received = self._collective.alltoall(parts)
        drawn = sampler.ids()
        owner = self._blocks.owner(drawn)
        mine = np.empty(drawn.size, np.float32)
        for source, part in enumerate(received):
            mine[owner == source] = part if kinds is None else kinds[part]
        drawn, first = np.unique(drawn, return_index=True)
        self._known = torch.from_numpy(drawn), torch.from_numpy(mine[first])

    def of(self, ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The weights of samples, float32 [B] on the device of `ids`, and which are unknown here.

        Both are None where nothing is weighted. ids: int [B]. Unknown, bool [B], are samples that
        are not this rank's to train; on the host they raise `InputError` at once.
        """
        if self._known is None:
            return None, None
        known, values = self._known
        if known.device != ids.device:
            known, values = self._known = known.to(ids.device), values.to(ids.device)
        at = torch.searchsorted(known, ids.to(torch.int64)).clamp_(max=len(known) - 1)
        unknown = known[at] != ids
        if not ids.is_cuda:
            self.refuse(ids, unknown)
        return values[at], unknown

    @staticmethod
    def refuse(ids: Tensor, unknown: Tensor) -> None:
        """Raise `InputError` for the first unknown id; waits for its device."""
        if unknown.any():
            raise InputError(
                f"sample id {int(ids[unknown][0])} is weighted, but its weight is another rank's: "
                "draw from filt.sampler()"
            )

    def _kinds(self, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """All weights of all ranks, ascending, where they are few; else None. Collective."""
        kinds = np.unique(values)
        most = self._collective.allreduce(np.array([kinds.size], np.int64), "max")
        if most[0] > _KINDS:
            return None
        everyone = np.unique(np.concatenate(self._collective.allgather(kinds)))
        return everyone if everyone.size <= _KINDS else None
