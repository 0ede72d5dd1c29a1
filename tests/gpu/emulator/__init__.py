"""A module like `hvdfilter._cuda` whose kernels run on the host, one coroutine a CUDA thread.

It compiles csrc/cuda against machine.h in this folder. What passes here is right in its index
arithmetic, its merging of partial sums, its barriers and its memory accesses; speed, races and
nvcc's own code are for a real GPU to show.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pybind11

from benchmarks.sass.compiling import load

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CSRC = ROOT / "csrc"


def compiler() -> str | None:
    """The C++ compiler to use, or None where there is none for Linux on this machine."""
    found = shutil.which(os.environ.get("CXX", "g++").split()[-1])
    return found if sys.platform == "linux" else None


def build() -> tuple[ModuleType, ModuleType]:
    """The emulated `_cuda` and the `watch` beside it; compiled once per state of the sources."""
    sources = sorted([*(CSRC / "cuda").glob("*.cu"), *(CSRC / "cuda").glob("*.cpp")])
    sources.append(HERE / "watch.cpp")
    headers = [*(CSRC / "cuda").glob("*.*h"), *HERE.glob("*.h"), CSRC / "row_score.h"]
    digest = hashlib.sha256(sysconfig.get_python_version().encode())
    for path in sorted({*sources, *headers, CSRC / "bindings.h"}):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / "emulator" / digest.hexdigest()[:16]
    library = folder / "emulated.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(lambda source: compile_one(source, folder), sources))
        partial = folder / f"{os.getpid()}.so"
        run([str(compiler()), "-shared", *map(str, objects), "-o", str(partial)])
        partial.rename(library)
    return load("_cuda", library), load("watch", library)


def compile_one(source: Path, folder: Path) -> Path:
    """One object file."""
    target = folder / f"{source.name}.o"
    includes = [HERE, CSRC / "cuda", sysconfig.get_paths()["include"], pybind11.get_include()]
    run(
        [str(compiler()), "-x", "c++", "-std=c++17", "-O1", "-fPIC", "-Wall", "-Werror"]
        + ['-DHVDFILTER_MACHINE="machine.h"', *(f"-I{folder}" for folder in includes)]
        + ["-c", str(source), "-o", str(target)]
    )
    return target


def run(command: list[str]) -> None:
    """A compiler call whose complaint, if any, is what the test shows."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
