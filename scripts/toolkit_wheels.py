"""A CUDA toolkit from the package registry, for a torch that came from there; it needs no root.

The wheels hold nvcc and its parts; torch brings the libraries. What a build system asks for beside
them, the unversioned names (`libcudart.so`), `lib64` and one folder of all headers, is made as a
folder of links.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from scripts.steps import SetupError
from scripts.toolkit import Toolkit

# The compiler, its headers and its back end must be of one release.
COMPILER = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
RUNTIME = "nvidia-cuda-runtime"
FIRST_WITH_NVCC = 13


def requirements(cuda: str, with_runtime: bool = False) -> list[str]:
    """Return what to install for a torch of CUDA release `cuda` ("13.0").

    with_runtime: also what a torch built for CUDA brings itself: the runtime and its headers.

    Raises `SetupError` for CUDA 12 and older: of those the registry has ptxas, but no nvcc (looked
    up in nvidia-cuda-nvcc-cu12 12.0.140 to 12.9.86).
    """
    if int(cuda.split(".")[0]) < FIRST_WITH_NVCC:
        raise SetupError(
            f"torch is built for CUDA {cuda}, of which the package registry has no compiler: "
            f"install the CUDA toolkit {cuda} and name it with CUDA_HOME, use a torch built for "
            f"CUDA {FIRST_WITH_NVCC} or newer, or set HVDFILTER_CUDA=0 for a build without GPUs."
        )
    names = (*COMPILER, RUNTIME) if with_runtime else COMPILER
    return [f"{name}=={cuda}.*" for name in names]


def link(cuda: str, sites: Iterable[Path], target: Path) -> Toolkit:
    """Make `target` a toolkit out of the wheels in the site-packages folders; return it.

    sites: the environment's own first, then those of the Python below it.
    """
    roots = [_root(site, cuda) for site in sites if _root(site, cuda).is_dir()]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    # nvcc takes its parts from beside the path it is called by, so bin/ is a folder of its own.
    _gather([root / "bin" for root in roots], target / "bin")
    _gather([root / "nvvm" for root in roots], target / "nvvm")
    _gather([root / "include" for root in roots], target / "include")
    _gather([root / "lib" for root in roots], target / "lib64", _unversioned)
    if not (target / "bin" / "nvcc").exists():
        raise SetupError(
            f"the CUDA {cuda} wheels hold no nvcc: install the CUDA toolkit {cuda} and name it "
            "with CUDA_HOME."
        )
    return Toolkit(target, cuda)


def nccl_home(sites: Iterable[Path], target: Path) -> Path | None:
    """Make `target` a folder with `include` and `lib` of torch's own NCCL; None if it has none.

    Horovod must use the NCCL that torch loads: two in one process would not share communicators.
    """
    found = [site / "nvidia" / "nccl" for site in sites if (site / "nvidia" / "nccl").is_dir()]
    if not found:
        return None
    shutil.rmtree(target, ignore_errors=True)
    _gather([root / "include" for root in found], target / "include")
    _gather([root / "lib" for root in found], target / "lib", _unversioned)
    return target


def _root(site: Path, cuda: str) -> Path:
    return site / "nvidia" / f"cu{cuda.split('.')[0]}"


def _unversioned(name: str) -> str:
    """The name that a linker asks for: libcudart.so of libcudart.so.13."""
    stem, dot_so, _ = name.partition(".so")
    return stem + dot_so


def _gather(
    folders: Iterable[Path], target: Path, also: Callable[[str], str] = lambda name: name
) -> None:
    """Link everything of some folders into `target`, the first of a name winning."""
    target.mkdir(parents=True)
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            for name in dict.fromkeys((entry.name, also(entry.name))):
                if not (target / name).is_symlink():
                    (target / name).symlink_to(entry)
