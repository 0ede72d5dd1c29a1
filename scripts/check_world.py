"""A two-rank allreduce by Horovod and by mpi4py in the same processes; run under mpirun.

Exits with 1 and one sentence when the two do not share one MPI world. Needs nothing of hvdfilter.
"""

import sys

import horovod.torch as hvd
import numpy as np
import torch


def main() -> int:
    """Return 0 if both libraries see the same world and sum correctly over it."""
    from mpi4py import MPI

    hvd.init()
    world = MPI.COMM_WORLD.Dup()
    rank, size = world.Get_rank(), world.Get_size()
    if (hvd.rank(), hvd.size()) != (rank, size):
        print(f"Horovod sees rank {hvd.rank()} of {hvd.size()}, mpi4py rank {rank} of {size}.")
        return 1
    total = size * (size + 1) / 2
    by_mpi = np.empty(4)
    world.Allreduce(np.full(4, rank + 1.0), by_mpi)
    by_horovod = hvd.allreduce(torch.full((4,), rank + 1.0), op=hvd.Sum, name="check_world")
    if not ((by_mpi == total).all() and bool((by_horovod == total).all())):
        print(f"rank {rank}: a sum of {total} came out as {by_mpi} and {by_horovod.tolist()}.")
        return 1
    if rank == 0:
        print(f"allreduce over {size} ranks agrees; {MPI.Get_library_version().splitlines()[0]}")
    world.Free()
    hvd.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
