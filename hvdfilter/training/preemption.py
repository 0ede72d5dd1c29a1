"""Preemption: the scheduler's warning signal becomes a checkpoint and an orderly exit.

Slurm sends SIGTERM (or, with `--signal=USR1@300`, SIGUSR1) before it kills. The handler only sets
a flag; the training loop hands it to `Filter.request_stop`, and all ranks stop at the same step.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType, TracebackType

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
    """While open, notes the signals in `signalled`."""

    def __init__(self) -> None:
        self.signalled = False
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
