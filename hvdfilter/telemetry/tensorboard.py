"""`--tensorboard`: an event file in the run folder, for `tensorboard --logdir runs`.

After each epoch its losses, accuracy, shares and seconds, over the epochs; within one the running
loss and the rate, over the optimiser's steps. Rank 0 writes; TensorBoard itself is not needed here.
"""

from __future__ import annotations

import math
import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvdfilter.files import unwritable
from hvdfilter.telemetry.careful import Careful
from hvdfilter.telemetry.events import first_record, scalars_record
from hvdfilter.training.following import Follower
from hvdfilter.training.meter import Now
from hvdfilter.training.run_files import read_metrics

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer
    from hvdfilter.world import World

_EPOCH = {
    "train/loss": "train_loss",
    "train/learning_rate": "lr",
    "test/loss": "test_loss",
    "test/accuracy": "test_accuracy",
}


class TensorBoard(Follower):
    """A file for each run that it follows.

    wanted: None where nobody said; then rank 0's host decides, by whether TensorBoard is installed.
    """

    every = 30.0

    def __init__(self, wanted: bool | None = None) -> None:
        self._wanted = wanted
        self._files: dict[Path, Path] = {}
        self._steps: dict[Path, int] = {}  # of the optimiser, before this epoch
        self._careful = Careful()

    def prepare(self, world: World) -> None:
        """Collective. One decision for all ranks, whatever is installed on their hosts."""
        if self._wanted is None:
            here = b"1" if world.rank == 0 and find_spec("tensorboard") is not None else b""
            self._wanted = world.collective.broadcast_bytes(here) == b"1"

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """A resumed run gets one file more, as TensorBoard has it."""
        if not self._wanted:
            return
        folder = run.folder.path
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._files[folder] = folder / f"{name}.hvdfilter"
        self._careful.first(run.world, lambda: self._open(folder, run.epoch))

    def tick(self, run: Trainer, now: Now) -> None:
        """The running figures."""
        if not self._wanted:
            return
        step = self._steps[run.folder.path] + now.step
        self._write(run, step, {"now/loss": now.loss, "now/samples_per_second": now.rate})

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        """The epoch's, at its number counted from one."""
        if run.world.rank != 0 or not self._wanted:
            return
        self._steps[run.folder.path] += record["steps"]
        values = {tag: record[name] for tag, name in _EPOCH.items() if name in record}
        values["filter/kept"] = record["kept"] / record["samples"]
        values["train/samples_per_second"] = now.rate
        values |= {f"seconds/{part}": taken for part, taken in record["seconds"].items()}
        self._write(run, record["epoch"] + 1, values)

    def _open(self, folder: Path, epoch: int) -> None:
        before = read_metrics(folder) if epoch else []
        self._steps[folder] = sum(record["steps"] for record in before)
        self._append(folder, first_record(time.time()))

    def _write(self, run: Trainer, step: int, values: dict[str, float]) -> None:
        known = {tag: value for tag, value in values.items() if not math.isnan(value)}
        record = scalars_record(time.time(), step, known)
        self._careful.later(lambda: self._append(run.folder.path, record))

    def _append(self, folder: Path, data: bytes) -> None:
        path = self._files[folder]
        try:
            with open(path, "ab") as file:
                file.write(data)
        except OSError as failed:
            raise unwritable(path, failed) from None
