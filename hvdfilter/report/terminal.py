"""How tables are drawn on a terminal, a job's log file or through a launcher."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
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
    )


def ascii_table(*columns: str, **options: Any) -> Table:
    """A table of plain characters; columns and options as rich takes them."""
    # Launchers cut the output anywhere, and a line-drawing character cut in two is unreadable.
    return Table(*columns, box=box.ASCII2, **options)
