"""Tells an Open MPI that came as a wheel where it lies, before anything starts MPI.

The wheel's libraries look for their helpers in the folder where they were compiled, and its mpirun
corrects that for the ranks it starts; a process started without mpirun (plainly, or by srun) has
nobody to do so, and MPI_Init would end it. An MPI of the machine knows its own place: left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def find_mpi_home(prefix: str = sys.prefix) -> None:
    """Set `OPAL_PREFIX` to `prefix` if an Open MPI wheel is installed there and nobody has set it.

    Called when hvdfilter is imported, before `MPI_Init`, which both Horovod and mpi4py run.
    """
    home = Path(prefix)
    if (home / "lib" / "libmpi.so.40").exists() and (home / "bin" / "opal_wrapper").exists():
        os.environ.setdefault("OPAL_PREFIX", prefix)
