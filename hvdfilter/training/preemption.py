"""Preemption: the scheduler's warning signal becomes a checkpoint and an orderly exit.

Slurm sends SIGTERM (or, with `--signal=USR1@300`, SIGUSR1) before it kills. The handler only sets
a flag; the ranks agree on it at the end of a step, so that all of them stop at the same one.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType, TracebackType

import numpy as np

from hvdfilter.world import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again with --resume


class Preempted(SystemExit):
    """Raised on every rank once the checkpoint is written; ends the process with `EXIT_CODE`.

    folder: the run to continue.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(EXIT_CODE)
        self.folder = folder


class Watch:
    """While open, notes the signals; `agreed()` asks whether any rank has had one."""

    def __init__(self, world: World) -> None:
        self._world, self._signalled = world, False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Watch:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def agreed(self) -> bool:
        """Collective. True on all ranks when one of them was signalled."""
        if self._world.size == 1:
            return self._signalled
        flag = np.array([self._signalled], np.int64)
        return bool(self._world.collective.allreduce(flag, "max")[0])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
