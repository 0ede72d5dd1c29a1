"""Loader workers that a scheduler's warning leaves alone: it is meant for the rank.

Slurm sends USR1 and TERM to every process of a step. A worker that died of it would take the
training down before the checkpoint is written. The signals of the rank itself are not changed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

WARNINGS = frozenset({signal.SIGTERM, signal.SIGUSR1})


def start_helpers() -> None:
    """Start the processes that start workers, so that these and all workers block warnings."""
    with _blocked():
        resource_tracker.ensure_running()
    with _blocked():  # once more, since the line above unblocks TERM
        forkserver.ensure_running()


def heed_only(trainer: int, worker: int) -> None:
    """In a worker: end at TERM of the process `trainer`, which may ask for it, and of no other."""
    threading.Thread(target=_wait_for, args=(trainer,), daemon=True).start()


def _wait_for(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
