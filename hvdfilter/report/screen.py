"""What a run shows on the terminal: a progress bar, a line an epoch, and the final table.

Rank 0 only; the bar only where the output is a terminal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hvdfilter import policies
from hvdfilter.report.compare import ROWS, find_full, summarise
from hvdfilter.training.config import TrainConfig
from hvdfilter.world import current


class Screen:
    """Follows a run; `step` and `epoch` are the callbacks of `train`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.console = _console()
        self._bar: Progress | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Move the bar."""
        if current().rank != 0 or not self.console.is_terminal:
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("", epoch=epoch)
        self._bar.update(self._bar.task_ids[0], completed=step, total=steps, epoch=epoch)

    def epoch(self, record: dict[str, Any]) -> None:
        """One line for a finished epoch."""
        if current().rank == 0:
            self.console.print(
                f"epoch {record['epoch'] + 1:3}/{self.config.epochs}  "
                f"loss {record['train_loss']:.4f}  test accuracy {record['test_accuracy']:.4f}  "
                f"hidden {record['hidden'] / record['samples']:5.1%}  "
                f"mask {record['mask_digest'][:8]}  {record['seconds']['total']:.2f} s",
                highlight=False,
                soft_wrap=True,
            )

    def table(self, folder: Path) -> None:
        """The finished run, beside a `full` run of the same work if there is one."""
        if current().rank != 0:
            return
        run, full = summarise(folder), find_full(folder)
        table = _table(title=str(folder), title_justify="left")
        table.add_column("")
        for column in [run] + ([full] if full else []):
            table.add_column(column.policy, justify="right")
        if full:
            table.add_column("difference", justify="right")
        for row in ROWS:
            cells = [row.cell(run)] + ([row.cell(full), row.difference(run, full)] if full else [])
            table.add_row("  " * row.part + row.label, *cells)
        self.console.print(table)
        if full is None and run.policy != "full":
            self.console.print(
                "no `full` run to compare with: add one with --policy full", soft_wrap=True
            )


def policy_table() -> None:
    """Every policy, its options with their defaults, and what it does."""
    table = _table("policy", "options", "what it does")
    for row in policies.describe():
        table.add_row(*row)
    _console().print(table)


def _console() -> Console:
    # mpirun gives rank 0 a pseudo-terminal for its output even when that ends in a file, but never
    # for its errors: only where both are terminals is there a person at the other end.
    person = sys.stdout.isatty() and sys.stderr.isatty()
    return Console(force_terminal=person, width=None if person else 100)


def _table(*columns: str, **options: Any) -> Table:
    # Launchers cut the output anywhere, and a line-drawing character cut in two is unreadable.
    return Table(*columns, box=box.ASCII2, **options)
