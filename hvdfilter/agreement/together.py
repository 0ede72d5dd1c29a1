"""One rank's error is every rank's, and all ranks are in one call: the manners of a collective.

It stands on the few operations of a back end that it names; `Collective` is built on it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.calls import Call, Message
from hvdfilter.agreement.meeting import Meeting, Meetings
from hvdfilter.errors import InputError, InstallError, WorldError

# Errors cross the ranks as a type's name and a sentence; other names become WorldError.
_SHARED_TYPES: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        InputError,
        InstallError,
        WorldError,
        ValueError,
        TypeError,
        IndexError,
        RuntimeError,
        NotImplementedError,
        MemoryError,
        OSError,
        FileNotFoundError,
        PermissionError,
        FloatingPointError,
        ArithmeticError,
    )
}


class Together(ABC):
    """Ranks that fail together and that know which call all of them are in."""

    rank: int
    size: int
    meetings: Meetings
    #: Of this rank, where the ranks are on several hosts: an error then names it too.
    host = ""
    _filters = 0

    @abstractmethod
    def allreduce(self, array: NDArray, op: str = "sum") -> NDArray:
        """See `Collective`."""

    @abstractmethod
    def broadcast_bytes(self, data: bytes | None, root: int = 0) -> bytes:
        """See `Collective`."""

    @abstractmethod
    def _count(self, sent: int, seconds: float) -> None: ...

    def share_error(self, error: Exception | None) -> None:
        """Collective. If any rank brings an error, all raise the lowest rank's, type and sentence.

        The sentence is prefixed with ``rank R:`` in a world of more than one, with ``rank R on
        HOST:`` where they are on several hosts. Costs one allreduce of 8 bytes when all is well.
        """
        if self.size == 1:
            if error is not None:
                raise error
            return
        mine = self.rank if error is not None else self.size
        first = int(self.allreduce(np.array([mine], np.int64), "min")[0])
        if first == self.size:
            return
        text = f"{type(error).__name__}\n{self.place}\n{error}".encode()
        kind, place, sentence = self.broadcast_bytes(text, first).decode().split("\n", 2)
        if kind not in _SHARED_TYPES:
            sentence = f"{kind}: {sentence}"
        shared = _SHARED_TYPES.get(kind, WorldError)(f"{place}: {sentence}")
        shared.on_all_ranks = True  # type: ignore[attr-defined]
        raise shared from error

    @property
    def place(self) -> str:
        """This rank in words, with its host where there are several."""
        return f"rank {self.rank} on {self.host}" if self.host else f"rank {self.rank}"

    @contextmanager
    def errors_shared(self) -> Iterator[None]:
        """Run a block of purely local work; its error, if any rank has one, is raised on all.

        The block must hold no collective call: a rank that failed would not take part in it.
        """
        caught: Exception | None = None
        try:
            yield
        except tuple(_SHARED_TYPES.values()) as error:
            caught = error
        self.share_error(caught)

    def number_filter(self) -> int:
        """1 for the first filter over these ranks, and so on: what its calls are told apart by."""
        self._filters += 1
        return self._filters

    def call(self, call: Call, argument: int = 0, *, flag: int = 0, filter: int = 0) -> Meeting:
        """Tell the other ranks, without waiting, which call this one is in; `wait_for` must follow.

        argument: what all ranks must pass alike. flag: the largest of any rank is what `wait_for`
        returns. filter: by `number_filter`.
        """
        return self.meetings.call(Message(call, filter, argument, self.rank), flag)

    def wait_for(self, meeting: Meeting) -> int:
        """Collective. Wait until all ranks are in the same call; the largest of their flags.

        Raises, where they are in different ones, an error that names two of them and the remedy.
        """
        started = time.perf_counter()
        flag = self.meetings.wait(meeting)
        self._count(2 * 24 * (self.size - 1) // self.size, time.perf_counter() - started)
        return flag

    def meet(
        self, call: Call, argument: int = 0, *, error: Exception | None = None, filter: int = 0
    ) -> None:
        """Collective. Open a public collective: all ranks are in this call, and in good order.

        error: what this rank has to report, if anything: all ranks then raise it. Costs one
        allreduce of 24 bytes.
        """
        failed = self.wait_for(self.call(call, argument, flag=error is not None, filter=filter))
        if failed:
            self.share_error(error)

    @contextmanager
    def opening(self, call: Call) -> Iterator[None]:
        """Like `errors_shared`, for the local work with which a public collective begins."""
        caught: Exception | None = None
        try:
            yield
        except tuple(_SHARED_TYPES.values()) as error:
            caught = error
        self.meet(call, error=caught)
