"""Two processes instead of one, so that neither can be killed and leave a job behind.

The first hands signals on and waits; the second does the work. Each is the parent of all that the
work starts, at last, and ends it where the other one is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from hvdfilter.launch import processes

WARNINGS = frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGINT})
_TICK = 0.2
# How long processes that are told to end get before they are killed.
GRACE = 5.0


def guarded(work: Callable[[], int]) -> int:
    """What `work` returns, in a process of its own; 128 + n where that was killed by signal n."""
    processes.adopt()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS | {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()  # a terminal's Ctrl-C reaches the first process alone
            processes.adopt()
            code = work()
        except Exception:
            sys.excepthook(*sys.exc_info())  # which nobody calls for a process that ends like this
        finally:
            os._exit(code)
    try:
        code = _hand_on(pid)
    finally:
        processes.end_all(GRACE)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code if code >= 0 else 128 - code


def take_signal() -> int | None:
    """The next warning, or a child's end, within a moment; None where there is none."""
    taken = signal.sigtimedwait(WARNINGS | {signal.SIGCHLD}, _TICK)
    return None if taken is None else taken.si_signo


def _hand_on(pid: int) -> int:
    while True:
        number = take_signal()
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if number in WARNINGS:
            processes.send([pid], signal.Signals(number))
