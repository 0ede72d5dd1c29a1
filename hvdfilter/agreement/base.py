"""What a collective back end offers, and everything that does not depend on which one it is.

The base class times and counts every call and cuts large messages into rounds. It never talks to a
network itself: a back end fills in the few primitives whose names start with an underscore, and
every one of those may rely on all ranks calling it together.
"""

from __future__ import annotations

import os
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import rounds
from hvdfilter.agreement.meeting import Meetings, Transfer
from hvdfilter.agreement.together import Together
from hvdfilter.errors import InputError

Array = NDArray[Any]

#: Largest message handed to a back end, in bytes: MPI counts are 32-bit, so 2 GiB is out of reach.
CHUNK_LIMIT = 1 << 30

_OPS = ("sum", "max", "min", "or")


class Collective(Together):
    """Collective operations on NumPy arrays over a fixed set of ranks.

    Attributes:
        rank, size: this process and the number of processes.
        traffic: bytes this rank has sent so far, by the bandwidth-optimal algorithm of each
            operation (allreduce of n bytes: ``2 n (size - 1) / size``; allgather: everything
            received from others; alltoall: everything for others; broadcast: n on the root).
        seconds: wall time spent inside collectives, waiting for slower ranks included.
        calls: number of collective operations.
        chunk_limit: largest single message in bytes; longer ones travel in rounds.
    """

    name: str = "collective"

    def __init__(self, rank: int, size: int, chunk_limit: int = CHUNK_LIMIT) -> None:
        self.rank = rank
        self.size = size
        self.chunk_limit = chunk_limit
        self.traffic = 0
        self.seconds = 0.0
        self.calls = 0
        self.meetings = Meetings(self)

    # -- primitives of a back end -------------------------------------------------------------

    @abstractmethod
    def _reduce(self, array: Array, op: str) -> Array: ...

    @abstractmethod
    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array: ...

    @abstractmethod
    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array: ...

    @abstractmethod
    def _bcast(self, data: Array, root: int) -> Array: ...

    @abstractmethod
    def _barrier(self) -> None: ...

    @abstractmethod
    def _start(self, words: Array) -> Transfer:
        """Begin a maximum of int64 [3] apart from all other operations, without waiting."""

    def _sign(self, number: int) -> None:  # noqa: B027 (not every back end can)
        """Let ranks that ask know that this one waits in its meeting `number`; called at times."""

    def _absent(self, number: int) -> list[int] | None:
        """Which ranks are not in meeting `number`; None where that can't be known."""
        return None

    def _exscan(self, array: Array) -> Array:
        """Through an allgather, for back ends without a scan of their own."""
        everyone = self._allgatherv(_as_bytes(array), [array.nbytes] * self.size)
        rows = everyone.view(array.dtype).reshape(self.size, -1)
        return rows[: self.rank].sum(axis=0, dtype=array.dtype).reshape(array.shape)

    @abstractmethod
    def local(self) -> tuple[int, int]:
        """Rank and number of ranks on this host; collective."""

    def abort(self, code: int) -> None:
        """End this rank at once, with this exit code: its launcher then ends the others."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # an orderly exit would wait for ranks that wait for this one

    def close(self) -> None:
        """Complete what is still under way and free the communicator; collective."""
        self.meetings.close()

    # -- the public operations ----------------------------------------------------------------

    def allreduce(self, array: Array, op: str = "sum") -> Array:
        """Element-wise reduction over ranks: a new array of the same shape and dtype.

        ``op`` is ``sum``, ``max``, ``min`` or ``or`` (bitwise, integers only). Shapes and dtypes
        must agree over the ranks. Float sums depend on the number of ranks; integers do not.
        """
        if op not in _OPS:
            raise InputError(f"unknown reduction {op!r}; use one of {', '.join(_OPS)}")
        array = np.ascontiguousarray(array)
        with self._counted(2 * array.nbytes * (self.size - 1) // self.size):
            if array.nbytes <= self.chunk_limit:
                return self._reduce(array, op)
            flat, result = array.reshape(-1), np.empty_like(array)
            step = max(1, self.chunk_limit // array.itemsize)
            for start in range(0, flat.size, step):
                part = self._reduce(flat[start : start + step], op)
                result.reshape(-1)[start : start + step] = part
            return result

    def exscan(self, array: Array) -> Array:
        """Exclusive prefix sum over ranks: what the ranks below this one hold; zeros on rank 0."""
        array = np.ascontiguousarray(array)
        with self._counted(array.nbytes if self.size > 1 else 0):
            return self._exscan(array)

    def allgather(self, array: Array) -> list[Array]:
        """The 1-D arrays of all ranks, in rank order; one dtype, lengths may differ."""
        array = _flat(array)
        lengths = self._lengths(array.size)
        flat = self.allgather_flat(array, lengths)
        return np.split(flat, np.cumsum(lengths)[:-1])

    def allgather_flat(self, array: Array, lengths: Sequence[int]) -> Array:
        """Like `allgather`, for lengths every rank knows already: one array, joined."""
        array = _flat(array)
        sizes = [int(length) * array.itemsize for length in lengths]
        if sizes[self.rank] != array.nbytes:
            raise ValueError("allgather_flat: this rank's array has not the length it announced")
        total = sum(sizes)
        with self._counted(total - array.nbytes):
            if total <= self.chunk_limit:
                return self._allgatherv(_as_bytes(array), sizes).view(array.dtype)
            return rounds.allgather(self, _as_bytes(array), sizes).view(array.dtype)

    def alltoall(self, parts: Sequence[Array]) -> list[Array]:
        """Send ``parts[r]`` to rank r; the arrays received, by source rank.

        1-D arrays of one dtype (structured ones too); lengths may differ.
        """
        if len(parts) != self.size:
            raise ValueError(f"alltoall needs {self.size} parts, one for each rank")
        parts = [_flat(part) for part in parts]
        dtype = parts[0].dtype
        sent = [part.nbytes for part in parts]
        with self._counted(sum(sent) - sent[self.rank]):
            lengths = self._alltoallv(
                np.array(sent, np.int64).view(np.uint8), [8] * self.size, [8] * self.size
            )
            received = [int(n) for n in lengths.view(np.int64)]
            biggest = np.array([max(sum(sent), sum(received)), max(sent)], np.int64)
            most, longest = (int(n) for n in self._reduce(biggest, "max"))
            data = [_as_bytes(part) for part in parts]
            if most <= self.chunk_limit:
                flat = self._alltoallv(np.concatenate(data), sent, received)
                pieces = np.split(flat, np.cumsum(received)[:-1])
            else:
                pieces = rounds.alltoall(self, data, received, longest)
        return [np.ascontiguousarray(piece).view(dtype) for piece in pieces]

    def broadcast(self, array: Array | None, root: int = 0) -> Array:
        """The root's array on every rank, with its shape and dtype; the others may pass None."""
        header = b""
        if self.rank == root:
            if array is None:
                raise ValueError("broadcast: the root must pass an array")
            array = np.ascontiguousarray(array)
            shape = ",".join(str(n) for n in array.shape)
            header = f"{array.dtype.str};{shape}".encode()
        dtype, shape = self.broadcast_bytes(header, root).decode().split(";")
        dims = [int(n) for n in shape.split(",") if n]
        data = _as_bytes(array.reshape(-1)) if self.rank == root and array is not None else None
        count = int(np.prod(dims, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self._broadcast_raw(data, count, root).view(dtype).reshape(dims)

    def broadcast_bytes(self, data: bytes | None, root: int = 0) -> bytes:
        """The root's bytes on every rank."""
        raw = np.frombuffer(data or b"", np.uint8) if self.rank == root else None
        length = np.array([0 if raw is None else raw.size], np.int64)
        count = int(self._bcast(length.view(np.uint8), root).view(np.int64)[0])
        return self._broadcast_raw(raw, count, root).tobytes()

    def barrier(self) -> None:
        """Return once every rank has called it."""
        with self._counted(0):
            self._barrier()

    def wait(self) -> None:
        """A barrier that gives way to other threads, for waits that may be long."""
        with self._counted(0):
            self._wait()

    def _wait(self) -> None:
        self._barrier()

    # -- helpers ------------------------------------------------------------------------------

    @contextmanager
    def _counted(self, sent: int) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._count(sent, time.perf_counter() - started)

    def _count(self, sent: int, seconds: float) -> None:
        self.seconds += seconds
        self.traffic += sent
        self.calls += 1

    def _lengths(self, length: int) -> list[int]:
        raw = np.array([length], np.int64).view(np.uint8)
        return [int(n) for n in self._allgatherv(raw, [8] * self.size).view(np.int64)]

    def _broadcast_raw(self, data: Array | None, count: int, root: int) -> Array:
        buffer = np.empty(count, np.uint8) if data is None else data.copy()
        with self._counted(count if self.rank == root and self.size > 1 else 0):
            for start in range(0, count, self.chunk_limit):
                part = buffer[start : start + self.chunk_limit]
                part[:] = self._bcast(part, root)
        return buffer


def _flat(array: Array) -> Array:
    array = np.ascontiguousarray(array)
    if array.ndim != 1:
        raise ValueError(f"this collective takes 1-D arrays, not shape {array.shape}")
    return array


def _as_bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
