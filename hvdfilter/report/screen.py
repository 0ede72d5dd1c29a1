"""What a run shows on the terminal: a progress bar, a line an epoch, and the final table.

Rank 0 only; the bar only where a person looks.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hvdfilter import policies
from hvdfilter.report.audience import terminal_width
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
        name = self._epoch(epoch)
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.add_task(name, total=steps)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=step, total=steps, description=name)

    def epoch(self, record: dict[str, Any]) -> None:
        """One line for a finished epoch."""
        if current().rank == 0:
            self.console.print(
                f"{self._epoch(record['epoch'])}  "
                f"loss {record['train_loss']:.4f}  test accuracy {record['test_accuracy']:.4f}  "
                f"hidden {record['hidden'] / record['samples']:5.1%}  "
                f"mask {record['mask_digest'][:8]}  {record['seconds']['total']:.2f} s",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def _epoch(self, epoch: int) -> str:
        """An epoch as bar and line both name it; people count from one."""
        return f"epoch {epoch + 1:3}/{self.config.epochs}"

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
    width = terminal_width()
    return Console(force_terminal=width is not None, width=100 if width is None else width)


def _table(*columns: str, **options: Any) -> Table:
    # Launchers cut the output anywhere, and a line-drawing character cut in two is unreadable.
    return Table(*columns, box=box.ASCII2, **options)
