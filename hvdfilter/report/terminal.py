"""How tables are drawn on a terminal, a job's log file or through a launcher."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hvdfilter.report.audience import terminal_width


def console() -> Console:
    """As wide as what reads it; 100 columns where that is no terminal."""
    width = terminal_width()
    return Console(force_terminal=width is not None, width=100 if width is None else width)


def ascii_table(*columns: str, **options: Any) -> Table:
    """A table of plain characters; columns and options as rich takes them."""
    # Launchers cut the output anywhere, and a line-drawing character cut in two is unreadable.
    return Table(*columns, box=box.ASCII2, **options)
