"""Loader workers that a scheduler's warning leaves alone: it is meant for the rank.

Slurm sends USR1 and TERM to every process of a step. A worker that died of it would take the
training down before the checkpoint is written. Workers block both, and the rank ends its own by
KILL: a TERM of its own could not be told from a warning, for of two that wait the second is lost.
The signals of the rank itself are not changed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, popen_forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

WARNINGS = frozenset({signal.SIGTERM, signal.SIGUSR1})


class _Handle(popen_forkserver.Popen):
    def terminate(self) -> None:
        """What multiprocessing and torch call for a worker that has to go."""
        self.kill()


class _Worker(ForkServerProcess):
    @staticmethod
    def _Popen(process: Any) -> _Handle:  # noqa: N802 # multiprocessing's name
        return _Handle(process)


class Workers(ForkServerContext):
    """The context that makes them: `multiprocessing_context` of a DataLoader."""

    Process = _Worker


def start_helpers() -> None:
    """Start the processes that start workers, so that these and all workers block warnings."""
    with _blocked():
        resource_tracker.ensure_running()
    with _blocked():  # once more, since the line above unblocks TERM
        forkserver.ensure_running()


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
