"""Tells an Open MPI that came as a wheel where it lies, before anything starts MPI.

The wheel's libraries look for their helpers in the folder where they were compiled, and its mpirun
corrects that for the ranks it starts; a process started without mpirun (plainly, or by srun) has
nobody to do so, and MPI_Init would end it. An MPI of the machine knows its own place: left alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def find_mpi_home(prefix: str = sys.prefix, path: Sequence[str] = ()) -> None:
    """Set `OPAL_PREFIX` to where an Open MPI wheel is installed, unless somebody has set it.

    prefix: this Python's. path: folders it imports from, by which a virtual environment finds what
    is installed in the one it stands on. Called when hvdfilter is imported, before `MPI_Init`,
    which both Horovod and mpi4py run.
    """
    sites = (Path(entry) for entry in path if Path(entry).name == "site-packages")
    for home in (Path(prefix), *(site.parents[2] for site in sites if len(site.parents) > 2)):
        if (home / "lib" / "libmpi.so.40").exists() and (home / "bin" / "opal_wrapper").exists():
            os.environ.setdefault("OPAL_PREFIX", str(home))
            return
