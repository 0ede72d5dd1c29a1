"""Meetings: the ranks tell each other which call they are in, and no rank waits for ever.

Every public collective opens with one small message on a channel of its own, so ranks that have
come apart never mix up the operations that follow. Several messages may be under way: a training
step tells of itself without waiting. How a message travels is the back end's affair.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.calls import Message, compare, encode
from hvdfilter.errors import InputError, WorldError

PATIENCE = "HVDFILTER_PATIENCE"
#: Seconds that a rank waits for others in one call: as long as torch.distributed does, and longer
#: than most of what a script does on rank 0 alone.
DEFAULT_PATIENCE = 1800.0
# A rank that has waited for so long sleeps between two looks, and is ready to answer others.
LONG = 1.0
# Where ranks outnumber cores, whoever spins keeps from running whom it waits for: collective.py.
SPIN_SECONDS = 5e-5

Words = NDArray[np.int64]


class RankGone(Exception):
    """What a back end says of a transfer that can't be completed, because a rank has left."""


class Transfer(Protocol):
    """A maximum over the ranks that is under way."""

    def done(self) -> bool:
        """Whether it is complete; never waits. Raises `RankGone`."""

    def result(self) -> Words:
        """The maximum, once it is complete. Raises `RankGone`."""


class Channel(Protocol):
    """What a back end does for meetings; see `Collective`."""

    rank: int
    size: int

    def _start(self, words: Words) -> Transfer: ...

    def _sign(self, number: int) -> None: ...

    def _absent(self, number: int) -> list[int] | None: ...

    def abort(self, code: int) -> None:
        """End the job at once."""


class Meeting:
    """One call of all ranks, told to the others and not yet compared."""

    def __init__(self, message: Message, number: int, transfer: Transfer) -> None:
        self.message, self.number = message, number
        self._transfer = transfer
        self._highest: Words | None = None

    def over(self) -> bool:
        """Whether every rank has come; never waits.

        Raises `WorldError`, which says so, where one of them has left.
        """
        try:
            if self._highest is None and self._transfer.done():
                self._highest = self._transfer.result()
        except RankGone as gone:
            message = self.message
            raise WorldError(
                f"rank {message.rank} is in {message.words()}, but another rank has left ({gone}): "
                f"{message.call.remedy}"
            ) from gone
        return self._highest is not None

    def flag(self) -> int:
        """The largest flag of any rank; raises where the ranks are in different calls."""
        assert self._highest is not None
        error = compare(self._highest)
        if error is not None:
            raise error
        return int(self._highest[2])


class Meetings:
    """The meetings of a back end's ranks, in the order in which they were called."""

    def __init__(self, channel: Channel, patience: float | None = None) -> None:
        self._channel = channel
        self.patience = patience_asked_for() if patience is None else patience
        self._held = 0
        # A filter that is dropped leaves its last step's message behind: MPI still writes into it.
        self._open: deque[Meeting] = deque()

    def call(self, message: Message, flag: int) -> Meeting:
        """Tell the others of a call, without waiting for them."""
        while self._open and self._open[0].over():
            self._open.popleft()
        self._held += 1
        transfer = self._channel._start(encode(message, flag))
        meeting = Meeting(message, self._held, transfer)
        self._open.append(meeting)
        return meeting

    def wait(self, meeting: Meeting) -> int:
        """Wait until every rank has come; the largest flag of any.

        Raises `WorldError` or `InputError` where the ranks are in different calls. A rank that has
        waited for `patience` seconds says for whom, and ends the job.
        """
        if not meeting.over():
            self._await(meeting)
        return meeting.flag()

    def close(self) -> None:
        """Wait for what is still under way."""
        while self._open:
            meeting = self._open.popleft()
            with suppress(WorldError):  # ranks that have left are no news at the end
                while not meeting.over():
                    os.sched_yield()

    def _await(self, meeting: Meeting) -> None:
        started = signed = time.monotonic()
        while not meeting.over():
            waited = time.monotonic() - started
            if waited > self.patience:
                self._give_up(meeting)
            if waited > LONG or waited > self.patience / 2:
                if signed == started or time.monotonic() - signed > LONG / 10:
                    signed = time.monotonic()
                    self._channel._sign(meeting.number)
                time.sleep(1e-3)
            elif waited > SPIN_SECONDS:
                os.sched_yield()

    def _give_up(self, meeting: Meeting) -> None:
        message, absent = meeting.message, self._channel._absent(meeting.number)
        if meeting.over():  # the last ones came while the others were asked
            return
        if absent is None:
            whom = "for other ranks, which have not come"
        elif absent:
            s, have = ("s", "have") if len(absent) > 1 else ("", "has")
            listed = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
            whom = f"for rank{s} {listed}, which {have} not come"
        else:
            whom = "for a message that all ranks have sent"
        sentence = (
            f"rank {message.rank} has waited {self.patience:g} s in {message.words()} {whom}: "
            f"{message.call.remedy} (or set {PATIENCE} to more seconds)"
        )
        print(f"hvdfilter: error: {sentence}", file=sys.stderr, flush=True)
        self._channel.abort(1)
        raise WorldError(sentence)  # where the launcher takes its time


@contextmanager
def patient(where: str, remedy: str, abort: Callable[[int], None]) -> Iterator[None]:
    """End the job with a sentence if the block, which waits in libraries, outlasts the patience."""
    seconds = patience_asked_for()

    def give_up() -> None:
        sentence = f"waited {seconds:g} s in {where} for other ranks, which have not come: {remedy}"
        print(f"hvdfilter: error: {sentence} (or set {PATIENCE})", file=sys.stderr, flush=True)
        abort(1)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def patience_asked_for() -> float:
    """Seconds by the environment variable, else the default; `InputError` for what is no time."""
    text = os.environ.get(PATIENCE, "")
    if not text:
        return DEFAULT_PATIENCE
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise InputError(f"{PATIENCE}={text} must be a number of seconds above 0")
    return seconds
