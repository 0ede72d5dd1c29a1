"""Commands that only read, started on several ranks: rank 0 runs them, the others end as it does.

MPI tells the ranks apart. Horovod is not started for it, nor are ranks told apart that MPI knows
nothing of.
"""

from __future__ import annotations

from collections.abc import Callable

from hvdfilter import launchers


def by_first_rank(work: Callable[[], int]) -> int:
    """Collective. The exit code that `work` returns on rank 0, on every rank."""
    if launchers.started_ranks()[0] == 1:
        return work()
    import numpy as np

    from hvdfilter.agreement import collective as seam

    if seam.mpi_world_size() == 1:
        return work()
    ranks = seam.mpi_collective()  # an error that `work` lets through ends all of them
    code = work() if ranks.rank == 0 else 0
    return int(ranks.broadcast(np.array([code]))[0])
