"""`--prometheus FILE`: how the run stands, for node_exporter's textfile collector.

Rank 0 replaces the file every quarter of a minute and after each epoch, whole or not at all. The
collector reads files that end in .prom, in the text format of exposition 0.0.4.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvdfilter import files
from hvdfilter.errors import InputError
from hvdfilter.telemetry.careful import Careful
from hvdfilter.training.following import Follower
from hvdfilter.training.meter import Now

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer
    from hvdfilter.world import World

# Name, help, and how it is had of where the run is.
_GAUGES: tuple[tuple[str, str, str], ...] = (
    ("epoch", "Epoch under way or just ended, counted from one.", "epoch"),
    ("epochs", "Epochs of the run.", "epochs"),
    ("step", "Optimiser steps done in the epoch.", "step"),
    ("steps", "Optimiser steps of the epoch.", "steps"),
    ("samples_per_second", "Samples trained a second, all ranks.", "rate"),
    (
        "train_loss",
        "Mean training loss of the epoch: of rank 0's samples so far, once it has ended of all.",
        "loss",
    ),
    ("test_accuracy_ratio", "Share of the test set that is right, last measured.", "accuracy"),
    ("kept_ratio", "Share of the training set that the epoch trains.", "kept"),
    ("left_seconds", "Seconds until the run ends, as predicted.", "left"),
)


class Prometheus(Follower):
    """Follows a run, or several by turns, each a value of the label `run`."""

    every = 15.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[str, dict[str, float]] = {}
        self._careful = Careful()
        self._first = False

    def prepare(self, world: World) -> None:
        """Refuse a file that cannot be written, or that the collector would not read."""
        self._first = world.rank == 0
        with world.collective.errors_shared():
            if self._path.suffix != ".prom":
                raise InputError(
                    f"--prometheus {self._path}: node_exporter reads files that end in .prom: "
                    "give it such a name"
                )
        self._careful.first(world, self._write)

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """One more run."""
        self._runs[run.folder.path.name] = {"running": 1}

    def tick(self, run: Trainer, now: Now) -> None:
        """How far it is."""
        self._note(run, now)

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        """How the epoch ended."""
        if self._first:
            self._note(run, now)

    def end(self) -> None:
        """It runs no more; a run that was killed says it still does, in a file that grows old."""
        for values in self._runs.values():
            values["running"] = 0
        if self._first and self._runs:
            self._careful.later(self._write)

    def _note(self, run: Trainer, now: Now) -> None:
        known = {name: float(getattr(now, field)) for name, _, field in _GAUGES}
        known["epoch"] += 1
        values = {name: value for name, value in known.items() if not math.isnan(value)}
        self._runs[run.folder.path.name] = values | {"running": 1}
        self._careful.later(self._write)

    def _write(self) -> None:
        lines = []
        helps = [*((name, text) for name, text, _ in _GAUGES), ("running", "1 while it trains.")]
        for name, text in helps:
            found = [(run, values[name]) for run, values in self._runs.items() if name in values]
            if found:
                lines += [f"# HELP hvdfilter_{name} {text}", f"# TYPE hvdfilter_{name} gauge"]
            lines += [f'hvdfilter_{name}{{run="{_label(run)}"}} {value!r}' for run, value in found]
        files.write(self._path, "\n".join(lines) + "\n")


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
