"""`python -m hvdfilter.launch.probe MPIRUN`: what a host has, on one line of JSON.

Run on every host of a list before the job, by ssh. It starts neither MPI nor torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

from hvdfilter.waiting import available_cores

MISSING = "no such program"


@dataclass(frozen=True)
class Found:
    """cores: that a process may use there; mpi: what the launcher of this path says it is."""

    cores: int
    mpi: str


def look(mpirun: str) -> Found:
    """This host. mpirun: path of the launcher whose own daemons the job will start; "": none."""
    return Found(available_cores(), _version(mpirun) if mpirun else "")


def _version(program: str) -> str:
    """Its first line about itself."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return MISSING
    except subprocess.TimeoutExpired:
        return "silent"
    return next(iter(done.stdout.splitlines()), "")


if __name__ == "__main__":
    print(json.dumps(asdict(look(*sys.argv[1:2] or [""]))))
