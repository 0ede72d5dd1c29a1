"""The collective back end over Horovod, for launches without MPI.

It never imports Horovod: the module that has been initialised is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvdfilter.agreement.base import CHUNK_LIMIT, Array, Collective


class HorovodCollective(Collective):
    """Over Horovod's own collectives, for launches without MPI (gloo, elastic).

    Args:
        hvd: an initialised ``horovod.torch`` module.

    Every operation is named by its place in the sequence, so that all ranks match them up however
    their training steps interleave. A small operation costs one Horovod cycle, about a millisecond.
    """

    name = "horovod"

    def __init__(self, hvd: Any, chunk_limit: int = CHUNK_LIMIT) -> None:
        super().__init__(hvd.rank(), hvd.size(), chunk_limit)
        self._hvd = hvd
        self._ops = {"sum": hvd.Sum, "max": hvd.Max, "min": hvd.Min}
        self._sequence = 0
        self._handle: Any = None

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
        result = self._hvd.allreduce(tensor, op=self._ops[op], name=self._name())
        return np.asarray(result.numpy()).reshape(array.shape).astype(array.dtype, copy=False)

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        import torch

        result = self._hvd.allgather(torch.from_numpy(data.copy()), name=self._name())
        return np.asarray(result.numpy())

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        import torch

        splits = torch.tensor(list(sent), dtype=torch.int32)
        result = self._hvd.alltoall(torch.from_numpy(data.copy()), splits, name=self._name())
        return np.asarray(result[0].numpy())

    def _bcast(self, data: Array, root: int) -> Array:
        import torch

        result = self._hvd.broadcast(torch.from_numpy(data.copy()), root, name=self._name())
        return np.asarray(result.numpy())

    def _barrier(self) -> None:
        self._reduce(np.zeros(1, np.int64), "sum")

    def _post(self, flag: int) -> None:
        import torch

        if self._handle is not None:
            raise ValueError("post_flag was called twice without a poll_flag between")
        tensor = torch.tensor([int(flag)], dtype=torch.int32)
        self._handle = self._hvd.allreduce_async(tensor, op=self._ops["max"], name=self._name())

    def _poll(self) -> int:
        if self._handle is None:
            return 0
        handle, self._handle = self._handle, None
        return int(self._hvd.synchronize(handle).item())

    def local(self) -> tuple[int, int]:
        """What Horovod says of this host."""
        return self._hvd.local_rank(), self._hvd.local_size()

    def close(self) -> None:
        """Complete a posted flag; Horovod itself stays up."""
        self._poll()
