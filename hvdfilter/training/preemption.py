"""Preemption: the scheduler's warning signal becomes a checkpoint and an orderly exit.

Slurm sends SIGTERM (or, with `--signal=USR1@300`, SIGUSR1) before it kills. The handler only sets
a flag; the training loop hands it to `Filter.request_stop`, and all ranks stop at the same step.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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


_early: list[int] = []


@contextmanager
def early() -> Iterator[None]:
    """Note warnings as a program starts, so that the first `Watch` knows of them.

    Importing torch and meeting the other ranks takes seconds, in which a warning would kill.
    """
    previous = {n: signal.signal(n, lambda number, frame: _early.append(number)) for n in SIGNALS}
    try:
        yield
    finally:
        _early.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)


class Watch:
    """While open, notes the signals in `signalled`; also what `early` noted.

    changed: in an elastic job, whether ranks are about to join or leave.
    """

    def __init__(self) -> None:
        self.signalled = self.changed = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Watch:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        self.signalled = bool(_early)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def stopping(self) -> bool:
        """Whether training is to stop here, with a checkpoint."""
        return self.signalled or self.changed

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
