"""What a run shows on the terminal: a progress bar, a line an epoch, and the final table.

Rank 0 only; the bar only where a person looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hvdfilter import policies
from hvdfilter.report.compare import ROWS, Summary, find_full, summarise
from hvdfilter.report.terminal import ascii_table, console
from hvdfilter.report.verdict import verdict
from hvdfilter.training.config import TrainConfig
from hvdfilter.world import current


class Screen:
    """Follows a run, or several by turns; `step` and `epoch` are the callbacks of `train`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.console = console()
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

    def step(self, epoch: int, step: int, steps: int, policy: str = "") -> None:
        """Move the bar. policy: whose turn it is, where runs are compared."""
        if current().rank != 0 or not self.console.is_terminal:
            return
        name = self._epoch(epoch, policy)
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

    def epoch(self, record: dict[str, Any], policy: str = "") -> None:
        """One line for a finished epoch."""
        if current().rank == 0:
            self.console.print(
                f"{self._epoch(record['epoch'], policy)}  "
                f"loss {record['train_loss']:.4f}  test accuracy {record['test_accuracy']:.4f}  "
                f"hidden {record['hidden'] / record['samples']:5.1%}  "
                f"mask {record['mask_digest'][:8]}  {record['seconds']['total']:.2f} s",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            for sentence in _budget(record.get("budget")):
                self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def table(self, folder: Path) -> None:
        """The finished run, beside a `full` run of the same work if there is one."""
        if current().rank != 0:
            return
        run, full = summarise(folder), find_full(folder)
        self._table(run, [full] if full else [])
        if full is None and run.policy != "full":
            self.console.print(
                "no `full` run to compare with: `hvdfilter compare` trains one beside it",
                soft_wrap=True,
            )

    def verdict(self, folders: Mapping[str, Path]) -> None:
        """The runs of a comparison side by side, and in sentences."""
        if current().rank != 0:
            return
        run, full, *random = map(summarise, folders.values())
        self._table(run, [full, *random])
        for sentence in verdict(run, full, *random):
            self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def _epoch(self, epoch: int, policy: str) -> str:
        """An epoch as bar and line both name it; people count from one."""
        return f"epoch {epoch + 1:3}/{self.config.epochs}" + (f"  {policy:10}" if policy else "")

    def _table(self, run: Summary, others: Sequence[Summary]) -> None:
        table = ascii_table("", title=str(run.folder), title_justify="left")
        for column in (run, *others):
            table.add_column(column.policy, justify="right")
        for other in others:
            table.add_column(f"against {other.policy}", justify="right")
        for row in ROWS:
            cells = [row.cell(column) for column in (run, *others)]
            cells += [row.difference(run, other) for other in others]
            table.add_row("  " * row.part + row.label, *cells)
        self.console.print(table)


def policy_table() -> None:
    """Every policy, its options with their defaults, what it does and costs, and its source."""
    table = ascii_table("policy", "options", "what it does", "cost beside training", "source")
    for row in policies.describe():
        table.add_row(*row)
    screen = console()
    screen.print(table)
    every = ", ".join(f"{name}={value!r}" for name, value in policies.COMMON.items())
    screen.print(f"every policy also takes {every}", highlight=False, markup=False)


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
