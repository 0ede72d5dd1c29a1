"""The collective back end over Horovod, for launches without MPI.

It never imports Horovod: the module that has been initialised is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvdfilter.agreement.base import CHUNK_LIMIT, Array, Collective
from hvdfilter.agreement.meeting import RankGone


class HorovodCollective(Collective):
    """Over Horovod's own collectives, for launches without MPI (gloo, elastic).

    Args:
        hvd: an initialised ``horovod.torch`` module.
        process_set: a ``ProcessSet`` that this rank is in, by default Horovod's whole world.

    Every operation is named by its place in the sequence, so that all ranks match them up however
    their training steps interleave. A small operation costs one Horovod cycle, about a millisecond.
    """

    name = "horovod"

    def __init__(
        self, hvd: Any, chunk_limit: int = CHUNK_LIMIT, *, process_set: Any = None
    ) -> None:
        among = hvd if process_set is None else process_set
        super().__init__(among.rank(), among.size(), chunk_limit)
        self._hvd = hvd
        self._ops = {"sum": hvd.Sum, "max": hvd.Max, "min": hvd.Min}
        # Horovod's roots are ranks of its world.
        self._ranks = range(self.size) if process_set is None else sorted(process_set.ranks)
        self._among = {} if process_set is None else {"process_set": process_set}
        self._sequence = self._calls = 0

    def _name(self) -> str:
        self._sequence += 1
        return f"hvdfilter.agreement.{self._sequence}"

    def _reduce(self, array: Array, op: str) -> Array:
        import torch

        if op == "or":  # Horovod has no bitwise reduction
            everyone = self._allgatherv(
                array.reshape(-1).view(np.uint8), [array.nbytes] * self.size
            )
            rows = everyone.view(array.dtype).reshape(self.size, *array.shape)
            return np.asarray(np.bitwise_or.reduce(rows, axis=0))
        # Horovod reduces integers of 32 and 64 bits only
        wide = array if array.itemsize >= 4 else array.astype(np.int32)
        tensor = torch.from_numpy(wide.reshape(-1).copy())
        result = self._hvd.allreduce(tensor, op=self._ops[op], name=self._name(), **self._among)
        return np.asarray(result.numpy()).reshape(array.shape).astype(array.dtype, copy=False)

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        import torch

        result = self._hvd.allgather(
            torch.from_numpy(data.copy()), name=self._name(), **self._among
        )
        return np.asarray(result.numpy())

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        import torch

        splits = torch.tensor(list(sent), dtype=torch.int32)
        result = self._hvd.alltoall(
            torch.from_numpy(data.copy()), splits, name=self._name(), **self._among
        )
        return np.asarray(result[0].numpy())

    def _bcast(self, data: Array, root: int) -> Array:
        import torch

        result = self._hvd.broadcast(
            torch.from_numpy(data.copy()), self._ranks[root], name=self._name(), **self._among
        )
        return np.asarray(result.numpy())

    def _barrier(self) -> None:
        self._reduce(np.zeros(1, np.int64), "sum")

    def _start(self, words: Array) -> _Handle:
        import torch

        # Counted by themselves: ranks that have come apart still pair these.
        self._calls += 1
        name = f"hvdfilter.call.{self._calls}"
        handle = self._hvd.allreduce_async(
            torch.from_numpy(words), op=self._ops["max"], name=name, **self._among
        )
        return _Handle(self._hvd, handle)

    def local(self) -> tuple[int, int]:
        """What Horovod says of this host."""
        return self._hvd.local_rank(), self._hvd.local_size()


class _Handle:
    """A maximum over the ranks, under way in Horovod's own thread."""

    def __init__(self, hvd: Any, handle: Any) -> None:
        self._hvd, self._handle = hvd, handle

    def done(self) -> bool:
        return bool(self._hvd.poll(self._handle))

    def result(self) -> Array:
        try:
            return np.asarray(self._hvd.synchronize(self._handle).numpy())
        except RuntimeError as error:  # Horovod's own kind, which is one
            raise RankGone(str(error).splitlines()[0]) from error
