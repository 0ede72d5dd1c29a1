"""How embeddings and their gradients travel: through the collective of the world, on host arrays.

Pair i of the global batch is owned by the rank that brought it; ranks may bring different numbers.
Sums over ranks are taken in the order of the ranks, so that a repetition gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.agreement import Collective


class Exchange:
    """The global batch, seen from one rank. pairs: how many each rank brought."""

    def __init__(self, collective: Collective, pairs: Sequence[int], device: torch.device) -> None:
        self.collective, self.pairs = collective, list(pairs)
        self._ends = list(accumulate(self.pairs, initial=0))
        self.start, self.stop = self._ends[collective.rank : collective.rank + 2]
        self.total = self._ends[-1]
        self._device = device

    def gather(self, own: Tensor) -> Tensor:
        """Collective. [B, ...] of every rank as [N, ...], in rank order; without gradients."""
        if self.collective.size == 1:
            return own.detach()
        width = own.shape[1:].numel()
        everyone = self.collective.allgather_flat(
            _host(own).reshape(-1), [width * n for n in self.pairs]
        )
        return torch.from_numpy(everyone).to(self._device).reshape(self.total, *own.shape[1:])

    def gather_columns(self, *own: Tensor) -> list[Tensor]:
        """Collective. As `gather`, several columns [B] in one message, as float64."""
        return list(self.gather(_table(own).to(self._device)).T)

    def to_owners(self, *columns: Tensor) -> list[Tensor]:
        """Collective. Columns [N] of every rank as float64 [P, B], for this rank's own pairs."""
        if self.collective.size == 1:
            return [column.double()[None] for column in columns]
        table = _table(columns).numpy()
        parts = [table[start:stop].reshape(-1) for start, stop in self._spans()]
        received = np.stack(self.collective.alltoall(parts))
        shape = self.collective.size, self.stop - self.start, len(columns)
        return list(torch.from_numpy(received.reshape(shape)).to(self._device).movedim(2, 0))

    def sum_at_owners(self, at: Tensor, rows: Tensor) -> Tensor:
        """Collective. Add rows [k, D] for the pairs `at` (ascending, none twice) up: own [B, D]."""
        own = rows.new_zeros(self.stop - self.start, rows.shape[1])
        if self.collective.size == 1:
            own[at] = rows
            return own
        values = _host(rows)
        record = np.dtype([("at", "<i8"), ("row", values.dtype, (rows.shape[1],))])
        records = np.empty(len(values), record)
        records["at"], records["row"] = _host(at), values
        cuts = np.searchsorted(records["at"], self._ends)
        parts = [records[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
        for part in self.collective.alltoall(parts):  # no rank names a pair twice in its part
            place = torch.from_numpy(part["at"] - self.start).to(self._device)
            own[place] += torch.from_numpy(np.ascontiguousarray(part["row"])).to(self._device)
        return own

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self._ends[:-1], self._ends[1:], strict=True))


def _host(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy()


def _table(columns: Sequence[Tensor]) -> Tensor:
    """Columns side by side on the host: float64 holds a float32, and an index, as they are."""
    return torch.stack([column.detach().cpu().double() for column in columns], 1)
