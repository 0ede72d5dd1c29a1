"""The last epoch of a script that does not end it: looked at as the process exits.

Nothing collective can be done then, so a rank looks at its own faults, and one that finds any ends
the job with a sentence, as an exception would have.
"""

from __future__ import annotations

import atexit
import sys
import weakref
from typing import Protocol

from hvdfilter.world import World


class Unended(Protocol):
    """A filter, as far as it is looked at."""

    world: World

    def unended(self) -> Exception | None:
        """What is wrong with an epoch that is open, as far as this rank knows."""


_watched: weakref.WeakSet[Unended] = weakref.WeakSet()


def watch(filt: Unended) -> None:
    """Look at `filt` as the process exits, if it still lives then."""
    if not _watched:
        # After Horovod and MPI have registered how they end, and so before they do.
        atexit.unregister(_look)
        atexit.register(_look)
    _watched.add(filt)


def _look() -> None:
    if hasattr(sys, "last_value"):  # an exception has told already
        return
    for filt in list(_watched):
        fault, collective = filt.unended(), filt.world.collective
        if fault is not None:
            rank = f"rank {collective.rank}: " if collective.size > 1 else ""
            print(
                f"hvdfilter: error: {rank}{fault} (seen as the script exits: filt.end_epoch() "
                "after the last epoch has all ranks raise it)",
                file=sys.stderr,
                flush=True,
            )
            collective.abort(1)
