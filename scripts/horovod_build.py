"""Builds Horovod from its source for the torch, Python, MPI and CUDA that are there; caches it.

Knows nothing of virtual environments beyond the paths it is given.
"""

import hashlib
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts import horovod_source
from scripts.cuda import Decision, asked_operations
from scripts.horovod_source import VERSION, Adaptation
from scripts.machine import MPI, first_line, jobs
from scripts.steps import ROOT, run, shown
from scripts.torch_facts import Torch, cxx_standard

DEFAULTS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
}

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


@dataclass(frozen=True)
class Ground:
    """What a build stands on: torch, MPI, the C++ compiler, and the decision about CUDA.

    nccl: folder of the NCCL that torch loads, if it brings one.
    """

    torch: Torch
    mpi: MPI
    compiler: str
    cuda: Decision
    nccl: Path | None = None


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


def build_key(ground: Ground, standard: int) -> dict[str, object]:
    """Return everything that makes one build differ from another."""
    recipe = (Path(__file__), Path(horovod_source.__file__))
    return {
        "horovod": VERSION,
        "torch": ground.torch.version,
        "python": f"{sys.implementation.cache_tag}-{platform.machine()}-{platform.system()}",
        "libc": "-".join(platform.libc_ver()),
        "mpi": ground.mpi.name,
        "cuda": [ground.cuda.horovod and ground.cuda.release, ground.cuda.operations],
        "compiler": first_line(ground.compiler, "--version"),
        "standard": standard,
        "options": options(),
        "recipe": hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest(),
    }


def build_environment(ground: Ground, bin_folder: Path) -> dict[str, str]:
    """Return the environment in which Horovod's own build finds all it needs."""
    env = {**os.environ, **options()}
    env["PATH"] = f"{bin_folder}{os.pathsep}{env.get('PATH', os.defpath)}"
    # CMake 4 no longer reads the policy version that Horovod's copy of Gloo states.
    env.setdefault("CMAKE_POLICY_VERSION_MINIMUM", "3.5")
    # That Gloo uses uint8_t without its header, which newer compilers no longer forgive.
    env["CXXFLAGS"] = f"{env.get('CXXFLAGS', '')} -include cstdint".strip()
    # Set by the make that runs set-up; Horovod's build takes its number of jobs from here.
    env["MAKEFLAGS"] = f"-j{jobs()}"
    env.pop("MAKELEVEL", None)
    if ground.cuda.horovod:
        env.update(gpu_environment(ground, env))
    return env


def gpu_environment(ground: Ground, env: dict[str, str]) -> dict[str, str]:
    """Return what points Horovod's build at the toolkit decided on, and at torch's NCCL."""
    kit = ground.cuda.toolkit
    assert kit is not None, "a decision for the registry's toolkit names it once it is installed"
    home = str(kit.home)
    found = {
        "CUDA_HOME": home,
        "CUDAToolkit_ROOT": home,
        "HOROVOD_CUDA_HOME": home,
        "CUDACXX": str(kit.nvcc),
        # Horovod asks the first nvcc on the path which architectures there are.
        "PATH": f"{kit.nvcc.parent}{os.pathsep}{env['PATH']}",
    }
    if ground.cuda.operations and not asked_operations():
        found["HOROVOD_GPU_OPERATIONS"] = ground.cuda.operations
    if ground.nccl is not None and "HOROVOD_NCCL_HOME" not in env:
        found |= {"HOROVOD_NCCL_HOME": str(ground.nccl), "HOROVOD_NCCL_LINK": "SHARED"}
    return found


def wheel(python: Path, ground: Ground, scratch: Path) -> Path:
    """Return a Horovod wheel for exactly this ground and Python: cached, or built in `scratch`.

    scratch: a folder whose path has no space, which would break Horovod's flags for the linker.
    """
    standard = cxx_standard(ground.torch.folder, ground.compiler)
    key = json.dumps(build_key(ground, standard), indent=1, sort_keys=True)
    cache = cache_folder()
    kept = (cache or ROOT / "build") / hashlib.sha256(key.encode()).hexdigest()[:20]
    if cache and (found := sorted(kept.glob("*.whl"))):
        print(f"  Horovod {VERSION} for torch {ground.torch.version} is in {kept}")
        return found[0]
    built = _build(python, ground, standard, scratch)
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "key.json").write_text(key)
    # A rename is atomic: two set-ups at once never see half a wheel.
    part = kept / f"{built.name}.{os.getpid()}"
    part.write_bytes(built.read_bytes())
    os.replace(part, kept / built.name)
    print(f"    kept in {shown(kept)}")
    return kept / built.name


def _build(python: Path, ground: Ground, standard: int, folder: Path) -> Path:
    source = horovod_source.fetch(python, folder)
    mpicc, rpath = ground.mpi.mpicc, ground.mpi.libraries
    if mpicc is None:
        mpicc, mpicxx = horovod_source.plain_mpi(python.parent.parent, folder / "mpi")
    else:
        mpicc, mpicxx = horovod_source.compilers_of(mpicc)
    to = Adaptation(standard, mpicc, mpicxx, rpath, ground.cuda.horovod)
    horovod_source.adapt(source, to)
    run(
        f"building Horovod {VERSION} for torch {ground.torch.version} in C++{standard} (minutes)",
        [str(python), "-m", "pip", "wheel", "--no-input", "--no-deps", "--no-cache-dir", "-v"]
        + ["--no-build-isolation", "-w", str(folder / "wheel"), str(source)],
        "read the first line with 'error' there, and check CXX, MPICC and the HOROVOD_* variables",
        log="horovod-build",
        env=build_environment(ground, python.parent),
    )
    (built,) = (folder / "wheel").glob("*.whl")
    return built
