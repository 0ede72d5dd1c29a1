"""The collective back end for MPI; the others are passed on from the files beside it.

This is the only file that imports mpi4py, and only inside functions. Nothing here pickles.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hvdfilter.agreement.base import CHUNK_LIMIT, Array, Collective
from hvdfilter.agreement.meeting import SPIN_SECONDS, RankGone
from hvdfilter.agreement.over_horovod import HorovodCollective
from hvdfilter.agreement.over_torch import TorchCollective
from hvdfilter.agreement.solo import SoloCollective
from hvdfilter.agreement.uncaught import end_job_on_uncaught
from hvdfilter.errors import WorldError

__all__ = [
    "Collective",
    "HorovodCollective",
    "MPICollective",
    "SoloCollective",
    "TorchCollective",
    "mpi_collective",
    "mpi_world_size",
]


# Where ranks and Horovod's threads, which spin too, outnumber the cores, a rank that spins in MPI
# keeps the one that everybody waits for from running (8 ms at a time here, 20 times the whole
# agreement). So a small message is waited for like this: look without pause for about as long as a
# network takes, then give way between looks. Sleeping instead would free the core as well, but the
# scheduler then puts both ranks on one core, and training took 1.6 times as long.
PATIENT_BYTES = 1 << 16

# Messages of ranks that have waited too long, and how long they wait for answers.
ASK, HERE = 1, 2
ANSWER_SECONDS = 2.0


class MPICollective(Collective):
    """Over an mpi4py communicator, which must not be used by anybody else meanwhile."""

    name = "mpi"

    def __init__(self, comm: Any, chunk_limit: int = CHUNK_LIMIT) -> None:
        from mpi4py import MPI

        super().__init__(comm.Get_rank(), comm.Get_size(), chunk_limit)
        self._comm = comm
        self._ops = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN, "or": MPI.BOR}
        self._byte = MPI.BYTE
        self._meetings = comm.Dup()
        self._answers: list[Any] = []

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
        abort_job(code)

    def _start(self, words: Array) -> _Reduction:
        return _Reduction(self._meetings, words, self._ops["max"])

    def _sign(self, number: int) -> None:
        """Answer the ranks that have asked who waits."""
        from mpi4py import MPI

        _refuse_ended()
        status = MPI.Status()
        while self._meetings.Iprobe(MPI.ANY_SOURCE, ASK, status):
            source = status.Get_source()
            self._meetings.Recv(np.empty(0, np.uint8), source, ASK)
            self._answers.append(self._meetings.Isend(np.empty(0, np.uint8), source, HERE))

    def _absent(self, number: int) -> list[int]:
        """Ask all ranks who waits as this one does: only those that do will answer."""
        from mpi4py import MPI

        others = set(range(self.size)) - {self.rank}
        asked = [self._meetings.Isend(np.empty(0, np.uint8), rank, ASK) for rank in others]
        started, status = time.monotonic(), MPI.Status()
        while others and time.monotonic() - started < ANSWER_SECONDS:
            self._sign(number)
            if self._meetings.Iprobe(MPI.ANY_SOURCE, HERE, status):
                self._meetings.Recv(np.empty(0, np.uint8), status.Get_source(), HERE)
                others.discard(status.Get_source())
            time.sleep(1e-3)
        self._answers += asked
        return sorted(others)

    def close(self) -> None:
        """Complete what is under way and free both communicators; collective."""
        super().close()
        self._meetings.Free()
        self._comm.Free()


class _Reduction:
    """A maximum over the ranks of a communicator, under way."""

    def __init__(self, comm: Any, words: Array, maximum: Any) -> None:
        self._sent, self._highest = words, words.copy()
        self._request = comm.Iallreduce(words, self._highest, maximum)

    def done(self) -> bool:
        with _using_mpi:
            _refuse_ended()
            return bool(self._request.Test())

    def result(self) -> Array:
        return self._highest


# Where a script calls hvd.init() before anybody else starts MPI, Horovod's thread ends it as soon
# as one rank exits, while others may wait here. MPI tells those who ask before it ends.
_using_mpi = threading.Lock()
_ended = False


def _expect_the_end(mpi: Any) -> None:
    """Have MPI wait with its end until nobody looks at a message, and note it."""

    def ending(*_: Any) -> None:
        global _ended
        with _using_mpi:
            _ended = True

    mpi.COMM_SELF.Set_attr(mpi.Comm.Create_keyval(delete_fn=ending), True)


def _refuse_ended() -> None:
    if _ended:
        raise RankGone("Horovod has ended, and MPI with it")


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
    _expect_the_end(mpi)
    end_job_on_uncaught(collective)
    return collective


def abort_job(code: int) -> None:
    """End all ranks of MPI's world where it has started, else this process; returns never."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.COMM_WORLD.Abort(code)
    os._exit(code)


def mpi_subset(ranks: Sequence[int]) -> Any:
    """A communicator of these ranks of MPI's world; collective over them alone."""
    mpi = _mpi()
    world = mpi.COMM_WORLD
    return world.Create_group(world.Get_group().Incl(sorted(ranks)))


def is_communicator(comm: Any) -> bool:
    """Whether this is an mpi4py communicator that holds this rank."""
    mpi = _mpi()
    return mpi is not None and isinstance(comm, mpi.Intracomm) and comm != mpi.COMM_NULL


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


def _mpi() -> Any:
    try:
        import mpi4py

        mpi4py.rc.thread_level = "multiple"  # Horovod's thread calls MPI beside ours
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # mpi4py says RuntimeError when no libmpi can be loaded
        return None
    return MPI
