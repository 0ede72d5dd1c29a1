"""What a command of the command line is: its name, its options, and the function that it runs.

Nothing here parses or imports what a command needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def _none(parser: ArgumentParser) -> None:
    """A command without options of its own."""


@dataclass(frozen=True)
class Command:
    """One of `hvdfilter NAME ...`.

    summary: one sentence. run: called with the parsed options; returns the exit code. add: adds
    the options; their names are written with underscores, and hyphens are taken for them. usage:
    what follows the name; examples: whole lines; notes: what the help ends with.
    torch: whether it needs torch, whose absence is then one sentence. first_rank: of several ranks
    the first alone runs it, for there is nothing to share.
    """

    name: str
    summary: str
    run: Callable[[Namespace], int]
    add: Callable[[ArgumentParser], None] = _none
    usage: str = "[OPTIONS]"
    examples: tuple[str, ...] = ()
    notes: str = ""
    torch: bool = True
    first_rank: bool = False
