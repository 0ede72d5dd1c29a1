"""The collective back end over torch.distributed, for DDP scripts that torchrun started.

Its process groups are its own, so that its operations never mix with DDP's, and go over gloo where
torch has it, whatever DDP uses: masks and scores are on the host, and messages that wait for no
training step must not take their turn in a queue of NCCL's.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from hvdfilter.agreement.base import CHUNK_LIMIT, Array, Collective
from hvdfilter.agreement.meeting import RankGone


class TorchCollective(Collective):
    """Over two new groups of the same ranks as `group`, of the initialised torch.distributed.

    group: a process group, by default all ranks. backend: of the new groups, by default gloo, or
    what torch.distributed was initialised with where this torch lacks gloo; with NCCL messages
    travel through `device`. Collective over the ranks of `group`.
    """

    name = "torch"

    def __init__(
        self,
        group: Any = None,
        chunk_limit: int = CHUNK_LIMIT,
        *,
        backend: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(dist.get_rank(group), dist.get_world_size(group), chunk_limit)
        # The store through which the ranks found each other outlives what goes wrong between them.
        self._store = dist.distributed_c10d._get_default_store()
        self._ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        backend = backend or ("gloo" if dist.is_gloo_available() else dist.get_backend(group))
        if device is None:
            on_gpu = backend != "gloo" and torch.cuda.is_available()
            device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else None
        self._device = device or torch.device("cpu")
        # Longer than we wait ourselves before the job is ended with a sentence; "inf" is a month.
        timeout = timedelta(seconds=min(self.meetings.patience + 600, 30 * 86400))
        self._group, self._channel = (
            dist.new_group(
                self._ranks, timeout=timeout, backend=backend, use_local_synchronization=True
            )
            for _ in range(2)
        )

    def _tensor(self, array: Array) -> torch.Tensor:
        """A copy on the device; integers that no back end reduces are widened."""
        wide = array if array.itemsize >= 4 or array.dtype == np.uint8 else array.astype(np.int32)
        return torch.from_numpy(wide.reshape(-1).copy()).to(self._device)

    def _reduce(self, array: Array, op: str) -> Array:
        if op == "or":  # neither gloo nor NCCL has a bitwise reduction
            everyone = self._allgatherv(
                array.reshape(-1).view(np.uint8), [array.nbytes] * self.size
            )
            rows = everyone.view(array.dtype).reshape(self.size, *array.shape)
            return np.asarray(np.bitwise_or.reduce(rows, axis=0))
        tensor = self._tensor(array)
        dist.all_reduce(tensor, _OPS[op], group=self._group)
        return np.asarray(tensor.cpu().numpy()).reshape(array.shape).astype(array.dtype, copy=False)

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        # gloo gathers equal lengths only.
        padded = np.zeros(max(counts), np.uint8)
        padded[: data.size] = data
        parts = [torch.empty(padded.size, dtype=torch.uint8, device=self._device) for _ in counts]
        dist.all_gather(parts, self._tensor(padded), group=self._group)
        return np.concatenate(
            [part.cpu().numpy()[:count] for part, count in zip(parts, counts, strict=True)]
        )

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        result = torch.empty(sum(received), dtype=torch.uint8, device=self._device)
        dist.all_to_all_single(
            result, self._tensor(data), list(received), list(sent), group=self._group
        )
        return np.asarray(result.cpu().numpy())

    def _bcast(self, data: Array, root: int) -> Array:
        tensor = self._tensor(data)
        dist.broadcast(tensor, self._ranks[root], group=self._group)
        return np.asarray(tensor.cpu().numpy())

    def _barrier(self) -> None:
        self._reduce(np.zeros(1, np.int64), "sum")

    def _start(self, words: Array) -> _Work:
        tensor = self._tensor(words)
        return _Work(tensor, dist.all_reduce(tensor, _OPS["max"], self._channel, async_op=True))

    def _sign(self, number: int) -> None:
        """Leave a note in the store."""
        self._store.set(self._note(number, self.rank), "waits")

    def _absent(self, number: int) -> list[int]:
        """The ranks without a note."""
        self._sign(number)
        others = (rank for rank in range(self.size) if rank != self.rank)
        return [rank for rank in others if not self._store.check([self._note(number, rank)])]

    def _note(self, number: int, rank: int) -> str:
        return f"hvdfilter/{self._ranks[0]}/{number}/{rank}"

    def local(self) -> tuple[int, int]:
        """Rank and number of ranks on hosts of this name; collective."""
        names = self.allgather(np.frombuffer(platform.node().encode(), np.uint8))
        here = [r for r, name in enumerate(names) if np.array_equal(name, names[self.rank])]
        return here.index(self.rank), len(here)

    def close(self) -> None:
        """Complete what is under way; torch.distributed itself stays up."""
        super().close()
        for group in (self._group, self._channel):
            dist.destroy_process_group(group)


class _Work:
    """A maximum over the ranks, under way in torch's own threads."""

    def __init__(self, tensor: torch.Tensor, work: Any) -> None:
        self._tensor, self._work = tensor, work

    def done(self) -> bool:
        return bool(self._work.is_completed())

    def result(self) -> Array:
        try:
            self._work.wait()
        except RuntimeError as error:
            raise RankGone(str(error).splitlines()[0]) from error
        return np.asarray(self._tensor.cpu().numpy())


_OPS = (
    {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}
    if dist.is_available()
    else {}
)
