"""What a run shows while it goes: a line an epoch, and how far it is within one. Rank 0 only.

Where a person looks, that is a bar with the figures below it; in a file or through a launcher's
prefixes a whole line now and then, and no escape sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from hvdfilter.report.audience import terminal_width
from hvdfilter.report.terminal import console
from hvdfilter.training.following import Follower
from hvdfilter.training.loop import Trainer
from hvdfilter.training.meter import Now

LOOK, LINE = 0.5, 30.0
"""Seconds between two looks of the bar at the run, and between two lines where there is none."""


class Screen(Follower):
    """Follows a run, or several by turns.

    errors: written to standard error, where standard output is for something else. every: seconds
    between two lines, or looks of the bar; by default as above.
    """

    def __init__(self, errors: bool = False, every: float | None = None) -> None:
        self.console = console(errors)
        self._live = not errors and terminal_width() is not None
        self.every = (LOOK if self._live else LINE) if every is None else every
        self._bar: _Bar | None = None

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """Say where a run that is resumed starts: a mistyped name begins at the beginning."""
        if run.world.rank != 0:
            return
        if self._live and self._bar is None:
            self._bar = _Bar(self.console, f"epoch {run.epoch + 1:3}/{epochs}")
            self._bar.start()
        if not run.config.resume or turn:
            return
        if run.folder.existed:
            where = f"goes on from epoch {run.epoch + 1}"
            where += f", step {run.step + 1}" if run.step else ""
        else:
            where = "starts anew, for there was no such run to resume"
        self.say(f"{run.folder.path} {where}")

    def tick(self, run: Trainer, now: Now) -> None:
        """Move the bar, or write a line."""
        if self._bar is not None:
            self._bar.show(now)
        else:
            parts = [_name(now), f"step {now.step}/{now.steps}", *_figures(now), _left(now)]
            self.say("  ".join(filter(None, parts)))

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        """One line for a finished epoch; the bar stands at its end, however short it was."""
        if run.world.rank != 0:
            return
        if self._bar is not None:
            self._bar.show(now)
        parts = [
            _name(now),
            f"loss {record['train_loss']:.4f}",
            f"test accuracy {record['test_accuracy']:.4f}",
            f"hidden {record['hidden'] / record['samples']:5.1%}",
            f"mask {record['mask_digest'][:8]}",
            f"{record['seconds']['total']:.2f} s",
        ]
        self.say("  ".join([*parts, *([_left(now)] if now.left > 0 else [])]))
        for sentence in _budget(record.get("budget")):
            self.say(sentence)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, sentence: str) -> None:
        """One line."""
        self.console.print(sentence, soft_wrap=True)


class _Bar(Progress):
    """The epoch's steps, and a line of figures below them."""

    def __init__(self, console: Console, name: str) -> None:
        self._figures = ""
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
        )
        self.add_task(name, total=None, left="")

    def show(self, now: Now) -> None:
        """Where the run is."""
        self._figures = "  ".join(_figures(now))
        self.update(
            self.task_ids[0],
            completed=now.step,
            total=now.steps,
            description=_name(now),
            left=_left(now),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self._figures, overflow="ellipsis", no_wrap=True)


def _name(now: Now) -> str:
    """An epoch as bar and lines name it; people count from one."""
    return f"epoch {now.epoch + 1:3}/{now.epochs}" + (f"  {now.turn:10}" if now.turn else "")


def _figures(now: Now) -> list[str]:
    """What is known of it now."""
    known = [
        (now.rate, f"{now.rate:,.0f} samples/s"),
        (now.loss, f"loss {now.loss:.4f}"),
        (now.accuracy, f"accuracy {now.accuracy:.4f}"),
        (now.kept, f"kept {now.kept:.0%}"),
    ]
    return [text for value, text in known if not math.isnan(value)]


def _left(now: Now) -> str:
    if math.isnan(now.left):
        return ""
    return f"left {timedelta(seconds=math.ceil(now.left))}"


def _budget(said: Mapping[str, Any] | None) -> list[str]:
    """What an epoch's line says below it of the run's wall-clock budget."""
    if said is None:
        return []
    if "error" in said:
        sentence = (
            f"training took {said['predicted']:.1f} s of its budget of {said['seconds']:g} s; "
            f"its end as predicted after the first epoch was wrong by {said['error']:+.1%}"
        )
    else:
        sentence = (
            f"{said['elapsed']:.1f} s of the budget of {said['seconds']:g} s are spent: the end is "
            f"predicted at {said['predicted']:.1f} s, with keep={said['keep']:.3f} from here on"
        )
    return [*([said["warning"]] if "warning" in said else []), sentence]
