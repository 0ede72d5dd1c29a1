"""Writing beside a run: refused at its start on every rank, given up later with one warning.

A place that cannot be written should not cost a minute of training, nor a full disk a month of it.
"""

from __future__ import annotations

from collections.abc import Callable

from hvdfilter.errors import InputError, warn
from hvdfilter.world import World


class Careful:
    """Calls what writes, on rank 0 alone."""

    def __init__(self) -> None:
        self._given_up = False

    def first(self, world: World, write: Callable[[], None]) -> None:
        """Collective. Raises `InputError` on every rank where rank 0 cannot write."""
        with world.collective.errors_shared():
            if world.rank == 0:
                write()

    def later(self, write: Callable[[], None]) -> None:
        """On rank 0. From the first failure on nothing is written any more."""
        if self._given_up:
            return
        try:
            write()
        except InputError as failed:
            self._given_up = True
            warn(f"{failed}; it is left as it is")
