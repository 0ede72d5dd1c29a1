"""The collectives of one world, timed: what `benchmarks.projection` starts under mpirun.

Each row is the median of the slowest rank's time, from a barrier on. "gradients" are Horovod's
allreduce of a fused tensor; "hierarchical" reduces within a host first, by MPI alone, for Horovod
has that for NCCL only.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.agreement import exchange, selection
from hvdfilter.agreement import Collective
from hvdfilter.training import ring
from hvdfilter.world import World, horovod

# The arguments of a rank, in bytes; gradients are a megabyte and more.
MESSAGES = (64, 1 << 12, 1 << 14, 1 << 17, 1 << 20, 1 << 22)
GRADIENTS = (1 << 18, 1 << 20, 1 << 22, 1 << 24)
SAMPLES = (50_000, 1_281_167)
# Seconds that a row may take, and how often it is timed at least and at most.
PATIENCE, LEAST, MOST = 1.5, 3, 15
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--local", type=int, default=1, help="ranks of each host")
    options = parser.parse_args()
    world = ring.start()
    torch.set_num_threads(1)
    rows = [{**row, "local": options.local} for row in measure(world, options.local)]
    if world.rank == 0:
        print(json.dumps(rows))


def measure(world: World, local: int) -> list[Row]:
    """Collective. All rows of this world, on all ranks."""
    collective, hvd = world.collective, horovod()
    rows = []
    for size in MESSAGES if world.size > 1 else ():
        array = np.zeros(size, np.uint8)
        words, parts = array.view(np.int64), np.array_split(array, world.size)
        counts = [array.size] * world.size
        rows += [
            timed("allreduce", size, world, partial(collective.allreduce, words)),
            timed("alltoall", size, world, partial(collective.alltoall, parts)),
            timed("allgather", size, world, partial(collective.allgather_flat, array, counts)),
        ]
    for size in GRADIENTS if world.size > 1 else ():
        tensor = torch.zeros(size // 4)
        name = f"points.{size}"

        def reduce(tensor: torch.Tensor = tensor, name: str = name) -> None:
            assert hvd is not None
            hvd.allreduce_(tensor, name=name)

        rows.append(timed("gradients", size, world, reduce))
        if local > 1:
            rows.append(timed("hierarchical", size, world, hierarchical(tensor.numpy(), local)))
    for samples in SAMPLES:
        for row in (*selection(collective, samples, LEAST), *exchange(collective, samples, LEAST)):
            if row["what"] in ("agree", "exchange"):
                rows.append({key: row[key] for key in ("what", "samples", "ranks", "p50_ms")})
    return rows


def timed(what: str, size: int, world: World, run: Callable[[], object]) -> Row:
    """Collective. A row of one operation."""
    collective = world.collective
    times = [_once(collective, run) for _ in range(2)][1:]  # the first one connects
    first = float(collective.allreduce(np.array(times), "max")[0])
    repeats = int(np.clip(PATIENCE / max(first, 1e-6), LEAST, MOST))
    times += [_once(collective, run) for _ in range(repeats)]
    slowest = collective.allreduce(np.array(times), "max")
    median = 1e3 * float(np.median(slowest))
    return {"what": what, "bytes": size, "ranks": world.size, "p50_ms": median}


def _once(collective: Collective, run: Callable[[], object]) -> float:
    collective.barrier()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def hierarchical(array: np.ndarray, local: int) -> Callable[[], object]:
    """Collective. Sums float32 [n] over all ranks, hosts of `local` ranks first; n % local is 0."""
    from mpi4py import MPI

    host = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank // local)
    across = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank % local)
    part = np.zeros(array.size // local, array.dtype)

    def run() -> None:
        host.Reduce_scatter_block(array, part)
        across.Allreduce(MPI.IN_PLACE, part)
        host.Allgather(part, array)

    return run


if __name__ == "__main__":
    main()
