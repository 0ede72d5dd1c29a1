"""How tables are drawn on a terminal, a job's log file or through a launcher."""

from __future__ import annotations

import re
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from hvdfilter.report.audience import colored, terminal_width

_WORD = 12  # characters of a word that stay together in a narrow column of sentences
_NUMBER = re.compile(r"-|[+-]?[\d.,]+(e[+-]?\d+)?%?")


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
        height=25,  # of nothing here; without it rich takes a dumb terminal for 80 columns wide
        # A name may hold brackets and colons.
        markup=False,
        emoji=False,
    )


def ascii_table(*columns: str, **options: Any) -> Table:
    """A table of plain characters; columns and options as rich takes them."""
    # Launchers cut the output anywhere, and a line-drawing character cut in two is unreadable.
    return Table(*columns, box=box.ASCII2, **options)


def show_table(screen: Console, table: Table) -> None:
    """Print a table whose numbers and single words are whole, however narrow what reads it.

    rich would cut words to fit, and of 8.478e-07 leave 8.5. Sentences take what is left, and their
    longest words go on in the next line. Lines may be longer than the terminal is wide.
    """
    least = 1
    for column in table.columns:
        cells = [str(cell) for cell in column.cells]
        lines = [line for cell in (str(column.header), *cells) for line in cell.split("\n")]
        widest = max(cell_len(word) for line in lines for word in line.split() or [""])
        column.no_wrap = all(len(line.split()) < 2 for line in lines)
        column.overflow = "fold"
        numbers = bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)
        column.justify = "right" if numbers else column.justify
        column.min_width = widest if numbers or column.no_wrap else min(widest, _WORD)
        least += column.min_width + 3  # with its padding and border
    width, screen.width = screen.width, max(screen.width, least)
    try:
        screen.print(table, crop=False)
    finally:
        screen.width = width
