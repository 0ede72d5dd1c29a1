"""How tables are drawn on a terminal, a job's log file or through a launcher."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from hvdfilter.report.audience import colored, terminal_width


def console(errors: bool = False) -> Console:
    """As wide as what reads it; 100 columns where that is no terminal. errors: standard error."""
    width = terminal_width()
    color = colored(width is not None)
    return Console(
        stderr=errors,
        force_terminal=width is not None or color,
        color_system=("standard" if width is None else "auto") if color else None,
        # rich drops colours only, and leaves bold, where the variable is set.
        no_color=not color,
        highlight=False,
        width=100 if width is None else width,
        markup=False,  # a name may hold brackets
    )


def ascii_table(*columns: str, **options: Any) -> Table:
    """A table of plain characters; columns and options as rich takes them."""
    # Launchers cut the output anywhere, and a line-drawing character cut in two is unreadable.
    return Table(*columns, box=box.ASCII2, **options)


def show_table(screen: Console, table: Table) -> None:
    """Print a table that is as wide as its words, whatever the width of what reads it.

    rich would cut words to fit, and of 8.478e-07 leave 8.5.
    """
    for column in table.columns:
        lines = [line for c in (column.header, *column.cells) for line in str(c).split("\n")]
        column.min_width = max(cell_len(word) for line in lines for word in line.split() or [""])
        # Columns of single words keep their width, and sentences take what is left.
        column.no_wrap = all(len(line.split()) < 2 for line in lines)
    unbounded = screen.options.update(max_width=10_000)
    width, least = screen.width, Measurement.get(screen, unbounded, table).minimum
    screen.width = max(width, least)
    try:
        screen.print(table, crop=False)
    finally:
        screen.width = width
