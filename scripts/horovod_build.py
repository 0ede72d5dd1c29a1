"""Builds Horovod from its PyPI source for the torch, Python and MPI that are there, and caches it.

Knows nothing of virtual environments beyond the paths it is given, and never edits an installed
file: two lines of the unpacked source ask for C++14 and are rewritten before the build.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import tarfile
from pathlib import Path

from scripts.machine import MPI, cxx_standard, first_line, jobs
from scripts.steps import ROOT, SetupError, run, shown

VERSION = "0.28.1"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
WORK = ROOT / "build" / "horovod"

DEFAULTS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
}

# After the compiler standard: where the library looks for MPI. CMake would write the absolute path
# of this virtual environment into it, and a wheel from the cache would load another one's libmpi.
# $ORIGIN is lib/pythonX.Y/site-packages/horovod/torch; four up is the lib/ with libmpi in it.
RPATH = """
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../../../..")
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
"""
STANDARD = "set(CMAKE_CXX_STANDARD 14)"


# What Horovod reads when it is built; all other HOROVOD_* variables are for running it.
BUILD_PREFIXES = tuple(
    f"HOROVOD_{name}"
    for name in (
        "WITH",
        "GPU",
        "CPU",
        "NCCL",
        "CUDA",
        "ROCM",
        "ALLOW_MIXED",
        "BUILD",
        "DEBUG",
        "CMAKE",
    )
)


def opposite(name: str) -> str:
    """Return the switch that contradicts `name`: HOROVOD_WITH_X for HOROVOD_WITHOUT_X."""
    if name.startswith("HOROVOD_WITHOUT_"):
        return name.replace("WITHOUT", "WITH", 1)
    return name.replace("WITH", "WITHOUT", 1)


def options() -> dict[str, str]:
    """Return the `HOROVOD_*` build options: the defaults, overruled by the environment."""
    asked = {name: value for name, value in os.environ.items() if name.startswith(BUILD_PREFIXES)}
    kept = {name: value for name, value in DEFAULTS.items() if opposite(name) not in asked}
    return dict(sorted({**kept, **asked}.items()))


def cache_folder() -> Path | None:
    """Return where built wheels are kept, or None when `HVDFILTER_CACHE` is "off"."""
    asked = os.environ.get("HVDFILTER_CACHE")
    if asked is not None and asked.lower() in ("", "0", "off", "no"):
        return None
    if asked:
        return Path(asked).expanduser().absolute() / "horovod"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hvdfilter" / "horovod"


def build_key(torch: str, standard: int, mpi: MPI, compiler: str) -> dict[str, object]:
    """Return everything that makes one build differ from another."""
    return {
        "horovod": VERSION,
        "torch": torch,
        "python": f"{sys.implementation.cache_tag}-{platform.machine()}-{platform.system()}",
        "libc": "-".join(platform.libc_ver()),
        "mpi": mpi.name,
        "compiler": first_line(compiler, "--version"),
        "standard": standard,
        "options": options(),
        "recipe": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }


def patch_source(source: Path, standard: int) -> None:
    """Raise the C++ standard of the unpacked `source` and make its library relocatable."""
    for name in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
        path = source / name
        text = path.read_text()
        if text.count(STANDARD) != 1:
            raise SetupError(f"{name} of Horovod {VERSION} is not as expected: delete {WORK}.")
        raised = f"set(CMAKE_CXX_STANDARD {standard})"
        path.write_text(text.replace(STANDARD, raised + (RPATH if "/" not in name else "")))


def unpack(python: Path, standard: int) -> Path:
    """Download Horovod's source, checked by its hash, and return the patched folder."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    wanted = WORK / "horovod.txt"
    wanted.write_text(f"horovod=={VERSION} --hash=sha256:{SHA256}\n")
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "download",
        "--no-input",
        "--no-deps",
        "--no-cache-dir",
    ]
    run(
        f"downloading Horovod {VERSION}",
        [*pip, "--no-build-isolation", "--no-binary", "horovod", "--require-hashes"]
        + ["-d", WORK, "-r", wanted],
        "check that the package registry is reachable (PIP_INDEX_URL)",
        log="horovod-download",
    )
    with tarfile.open(WORK / f"horovod-{VERSION}.tar.gz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(WORK, filter="data")
        else:  # Python 3.10.0 to 3.10.11; the hash above vouches for the content
            archive.extractall(WORK)
    source = WORK / f"horovod-{VERSION}"
    patch_source(source, standard)
    return source


def build_environment(bin_folder: Path, mpi: MPI) -> dict[str, str]:
    """Return the environment in which Horovod's own build finds all it needs."""
    env = {**os.environ, **options()}
    folders = [str(bin_folder)] if mpi.mpicc is None else [str(mpi.mpicc.parent), str(bin_folder)]
    env["PATH"] = os.pathsep.join([*folders, env.get("PATH", os.defpath)])
    if mpi.mpicc is not None:
        env["MPI_HOME"] = str(mpi.mpicc.parent.parent)
    # CMake 4 no longer reads the policy version that Horovod's copy of Gloo states.
    env.setdefault("CMAKE_POLICY_VERSION_MINIMUM", "3.5")
    # That Gloo uses uint8_t without its header, which newer compilers no longer forgive.
    env["CXXFLAGS"] = f"{env.get('CXXFLAGS', '')} -include cstdint".strip()
    # Set by the make that runs set-up; Horovod's build takes its number of jobs from here.
    env["MAKEFLAGS"] = f"-j{jobs()}"
    env.pop("MAKELEVEL", None)
    return env


def wheel(python: Path, torch: str, torch_root: Path, mpi: MPI, compiler: str) -> Path:
    """Return a Horovod wheel for exactly this torch, Python and MPI: cached, or built now."""
    standard = cxx_standard(torch_root, compiler)
    key = json.dumps(build_key(torch, standard, mpi, compiler), indent=1, sort_keys=True)
    cache = cache_folder()
    kept = cache / hashlib.sha256(key.encode()).hexdigest()[:20] if cache else None
    if kept and (found := sorted(kept.glob("*.whl"))):
        print(f"  Horovod {VERSION} for torch {torch} is in {kept}")
        return found[0]
    source = unpack(python, standard)
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "wheel",
        "--no-input",
        "--no-deps",
        "--no-cache-dir",
        "-v",
    ]
    run(
        f"building Horovod {VERSION} for torch {torch} in C++{standard} (some minutes)",
        [*pip, "--no-build-isolation", "-w", WORK / "wheel", source],
        "read the first line with 'error' there, and check CXX, MPICC and the HOROVOD_* variables",
        log="horovod-build",
        env=build_environment(python.parent, mpi),
    )
    (built,) = (WORK / "wheel").glob("*.whl")
    if kept is None:
        return built
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "key.json").write_text(key)
    # A rename is atomic: two set-ups at once never see half a wheel.
    part = kept / f"{built.name}.{os.getpid()}"
    shutil.copyfile(built, part)
    os.replace(part, kept / built.name)
    shutil.rmtree(source)
    print(f"  kept in {shown(kept)}")
    return kept / built.name
