"""The collective back ends for one process and for MPI; Horovod's is passed on from beside it.

This is the only file that imports mpi4py, and only inside functions. Nothing here pickles.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from hvdfilter.agreement.base import CHUNK_LIMIT, Array, Collective
from hvdfilter.agreement.over_horovod import HorovodCollective
from hvdfilter.errors import WorldError

__all__ = [
    "Collective",
    "HorovodCollective",
    "MPICollective",
    "SoloCollective",
    "mpi_collective",
    "mpi_world_size",
]


# Where ranks and Horovod's threads, which spin too, outnumber the cores, a rank that spins in MPI
# keeps the one that everybody waits for from running (8 ms at a time here, 20 times the whole
# agreement). So a small message is waited for like this: look without pause for about as long as a
# network takes, then give way between looks. Sleeping instead would free the core as well, but the
# scheduler then puts both ranks on one core, and training took 1.6 times as long.
PATIENT_BYTES = 1 << 16
SPIN_SECONDS = 5e-5


class SoloCollective(Collective):
    """A world of one: every operation is the identity, no byte moves."""

    name = "solo"

    def __init__(self, chunk_limit: int = CHUNK_LIMIT) -> None:
        super().__init__(0, 1, chunk_limit)
        self._flag = 0

    def _reduce(self, array: Array, op: str) -> Array:
        return array.copy()

    def _exscan(self, array: Array) -> Array:
        return np.zeros_like(array)

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        return data.copy()

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        return data.copy()

    def _bcast(self, data: Array, root: int) -> Array:
        return data

    def _barrier(self) -> None:
        pass

    def local(self) -> tuple[int, int]:
        """The only rank of its host."""
        return 0, 1

    def _post(self, flag: int) -> None:
        self._flag = flag

    def _poll(self) -> int:
        flag, self._flag = self._flag, 0
        return flag


class MPICollective(Collective):
    """Over an mpi4py communicator, which must not be used by anybody else meanwhile."""

    name = "mpi"

    def __init__(self, comm: Any, chunk_limit: int = CHUNK_LIMIT) -> None:
        from mpi4py import MPI

        super().__init__(comm.Get_rank(), comm.Get_size(), chunk_limit)
        self._comm = comm
        self._ops = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN, "or": MPI.BOR}
        self._byte = MPI.BYTE
        self._request: Any = None
        self._flags = np.zeros(2, np.int32)

    def _reduce(self, array: Array, op: str) -> Array:
        result = np.empty_like(array)
        start = self._comm.Iallreduce if array.nbytes <= PATIENT_BYTES else self._comm.Allreduce
        _finish(start(array, result, self._ops[op]))
        return result

    def _exscan(self, array: Array) -> Array:
        result = np.zeros_like(array)
        start = self._comm.Iexscan if array.nbytes <= PATIENT_BYTES else self._comm.Exscan
        _finish(start(array, result))
        if self.rank == 0:  # MPI leaves the first rank's buffer undefined
            result[...] = 0
        return result

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        result = np.empty(sum(counts), np.uint8)
        patient = result.nbytes <= PATIENT_BYTES
        start = self._comm.Iallgatherv if patient else self._comm.Allgatherv
        _finish(start([data, self._byte], [result, list(counts), self._byte]))
        return result

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        result = np.empty(sum(received), np.uint8)
        self._comm.Alltoallv([data, list(sent), self._byte], [result, list(received), self._byte])
        return result

    def _bcast(self, data: Array, root: int) -> Array:
        buffer = data.copy()
        start = self._comm.Ibcast if buffer.nbytes <= PATIENT_BYTES else self._comm.Bcast
        _finish(start([buffer, self._byte], root))
        return buffer

    def _barrier(self) -> None:
        self._comm.Barrier()

    def _wait(self) -> None:
        _finish(self._comm.Ibarrier())

    def local(self) -> tuple[int, int]:
        """Rank and number of ranks that share memory with this one; collective."""
        from mpi4py import MPI

        host = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        place = host.Get_rank(), host.Get_size()
        host.Free()
        return place

    def abort(self, code: int) -> None:
        """MPI_Abort on the whole world, also after `close`: the launcher ends all ranks."""
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(code)

    def _post(self, flag: int) -> None:
        if self._request is not None:
            raise ValueError("post_flag was called twice without a poll_flag between")
        from mpi4py import MPI

        self._flags[:] = (int(flag), 0)
        self._request = self._comm.Iallreduce(self._flags[:1], self._flags[1:], MPI.MAX)

    def _poll(self) -> int:
        if self._request is None:
            return 0
        self._request.Wait()
        self._request = None
        return int(self._flags[1])

    def close(self) -> None:
        """Complete a posted flag and free the communicator; collective."""
        self._poll()
        self._comm.Free()


def _finish(request: Any) -> None:
    """Wait for a non-blocking operation; None, of a blocking one, is finished already."""
    if request is None:
        return
    patience = time.perf_counter() + SPIN_SECONDS
    while not request.Test():
        if time.perf_counter() > patience:
            os.sched_yield()


def mpi_collective(comm: Any = None) -> MPICollective:
    """A collective over a duplicate of ``comm`` (default: MPI's world), so that no other user of
    MPI in the process -- Horovod above all -- can meet our messages.

    Starts MPI with THREAD_MULTIPLE if nobody has yet. Raises WorldError without mpi4py or MPI.
    """
    mpi = _mpi()
    if mpi is None:
        raise WorldError("MPI cannot be used here: install mpi4py and an MPI library it can load")
    collective = MPICollective((mpi.COMM_WORLD if comm is None else comm).Dup())
    if collective.size > 1:
        _abort_on_uncaught(collective)
    return collective


def mpi_world_size() -> int:
    """How many processes MPI sees; 1 where there is no MPI."""
    mpi = _mpi()
    return 1 if mpi is None else int(mpi.COMM_WORLD.Get_size())


def mpi_facts() -> dict[str, Any] | None:
    """What `hvdfilter doctor` reports about MPI; None where there is no mpi4py or no MPI."""
    mpi = _mpi()
    if mpi is None:
        return None
    return {
        "library": mpi.Get_library_version().split(",")[0].splitlines()[0].strip("\0 "),
        "thread_level": _thread_level(mpi),
        "rank": mpi.COMM_WORLD.Get_rank(),
        "size": mpi.COMM_WORLD.Get_size(),
        "module": mpi.__file__,
    }


def _thread_level(mpi: Any) -> str:
    """What MPI granted: single, funneled, serialized or multiple."""
    for name in ("SINGLE", "FUNNELED", "SERIALIZED"):
        if mpi.Query_thread() == getattr(mpi, f"THREAD_{name}"):
            return name.lower()
    return "multiple"


def _abort_on_uncaught(collective: MPICollective) -> None:
    """Let an exception that ends this rank alone end the job.

    Python would finalise MPI on its way out, and that waits for ranks which wait for this one.
    An error that all ranks raised needs no abort: they all leave.
    """
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(kind, error, trace)
        if not getattr(error, "on_all_ranks", False):
            sys.stdout.flush()
            sys.stderr.flush()
            collective.abort(1)

    sys.excepthook = hook


def _mpi() -> Any:
    try:
        import mpi4py

        mpi4py.rc.thread_level = "multiple"  # Horovod's thread calls MPI beside ours
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # mpi4py says RuntimeError when no libmpi can be loaded
        return None
    return MPI
