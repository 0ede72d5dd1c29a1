"""A world of ranks as threads of one process: many sizes and cases a second, with the real code.

Real processes under mpirun are in tests/distributed; this is for property-based tests. A rank that
fails breaks the barrier, so nobody waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from hvdfilter.agreement.base import Array, Collective

T = TypeVar("T")


class _Hall:
    """Where the threads meet: one slot a rank, and a barrier before and after looking."""

    def __init__(self, size: int) -> None:
        self.slots: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def meet(self, rank: int, item: Any) -> list[Any]:
        self.slots[rank] = item
        self.barrier.wait()
        everyone = list(self.slots)
        self.barrier.wait()
        return everyone


class ThreadCollective(Collective):
    name = "threads"

    def __init__(self, rank: int, hall: _Hall, chunk_limit: int) -> None:
        super().__init__(rank, len(hall.slots), chunk_limit)
        self._hall = hall
        self.messages: list[int] = []  # bytes of every primitive, to hold against the limit

    def _reduce(self, array: Array, op: str) -> Array:
        self.messages.append(array.nbytes)
        stack = np.stack(self._hall.meet(self.rank, array))
        ufunc = {"sum": np.add, "max": np.maximum, "min": np.minimum, "or": np.bitwise_or}[op]
        return ufunc.reduce(stack, axis=0, dtype=array.dtype)

    def _allgatherv(self, data: Array, counts: Sequence[int]) -> Array:
        self.messages.append(sum(counts))
        parts = self._hall.meet(self.rank, data.copy())
        assert [part.size for part in parts] == list(counts)
        return np.concatenate(parts)

    def _alltoallv(self, data: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        self.messages.append(max(sum(sent), sum(received)))
        rows = self._hall.meet(self.rank, np.split(data, np.cumsum(sent)[:-1]))
        mine = [row[self.rank] for row in rows]
        assert [part.size for part in mine] == list(received)
        return np.concatenate(mine)

    def _bcast(self, data: Array, root: int) -> Array:
        self.messages.append(data.nbytes)
        return self._hall.meet(self.rank, data.copy())[root]

    def _barrier(self) -> None:
        self._hall.meet(self.rank, None)

    def _start(self, words: Array) -> _Meet:
        return _Meet(self, words)

    def local(self) -> tuple[int, int]:
        return self.rank, self.size


class _Meet:
    """A maximum over the threads, who meet where it is looked at."""

    def __init__(self, collective: ThreadCollective, words: Array) -> None:
        self._collective, self._words = collective, words

    def done(self) -> bool:
        return True

    def result(self) -> Array:
        return np.max(self._collective._hall.meet(self._collective.rank, self._words), axis=0)


def run_world(
    size: int, body: Callable[[ThreadCollective], T], chunk_limit: int = 1 << 30
) -> list[T]:
    """What `body` returned on each rank; the first rank's exception if any raised.

    Exceptions that merely tell of another rank's failure (a broken barrier) come last.
    """
    hall = _Hall(size)
    results: list[Any] = [None] * size
    errors: list[tuple[bool, int, BaseException]] = []

    def work(rank: int) -> None:
        try:
            results[rank] = body(ThreadCollective(rank, hall, chunk_limit))
        except BaseException as error:  # handed to the test below
            errors.append((isinstance(error, threading.BrokenBarrierError), rank, error))
            hall.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise min(errors, key=lambda e: e[:2])[2]
    return results


def all_errors(size: int, body: Callable[[ThreadCollective], Any]) -> list[str]:
    """The sentence with which each rank failed; every rank must fail, none with a broken barrier.

    The barrier stays whole: the ranks must all find their way out by themselves.
    """

    def wrapped(collective: ThreadCollective) -> str:
        try:
            body(collective)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, threading.BrokenBarrierError):
                raise
            return f"{type(error).__name__}: {error}"
        raise AssertionError(f"rank {collective.rank} met no error")

    return run_world(size, wrapped)
