"""Horovod's source from its registry, checked by hash and adapted to the torch and MPI at hand.

Only the unpacked copy is changed: the C++ standard, where its library looks for MPI and torch, how
it finds MPI, and whether it may look for CUDA. The build itself is elsewhere.
"""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from scripts.steps import SetupError, run

VERSION = "0.28.1"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"

STANDARD = "set(CMAKE_CXX_STANDARD 14)"
# Where the library finds MPI and torch, seen from lib/pythonX.Y/site-packages/horovod/torch. CMake
# would write absolute paths of this virtual environment and of the folder it was built in; a wheel
# from the cache would then load another environment's libmpi.
RPATH = """
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../../../..;$ORIGIN/../../torch/lib{beside}")
"""
# Debug symbols are two thirds of the library and a part of the time it takes.
NO_SYMBOLS = """
string(REPLACE "-g" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")
string(REPLACE "-g" "" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")
"""
MPI_COMPILERS = """
set(MPI_C_COMPILER "{mpicc}" CACHE FILEPATH "")
set(MPI_CXX_COMPILER "{mpicxx}" CACHE FILEPATH "")
"""
# Horovod enables CUDA wherever it sees an nvcc, and asks for a whole toolkit where torch's own
# search sees one, wanted or not.
NO_CUDA = """
set(CMAKE_CUDA_COMPILER "CMAKE_CUDA_COMPILER-NOTFOUND")
set(CMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit TRUE)
"""
TORCH_SEARCH = "(torch.version.cuda is not None) and (CUDA_HOME is not None)"


@dataclass(frozen=True)
class Adaptation:
    """What a build asks of the source.

    standard: of C++. mpicc, mpicxx: the compilers to ask about MPI. rpath: folders of libraries
    that are the machine's own. cuda: whether to look for CUDA.
    """

    standard: int
    mpicc: Path
    mpicxx: Path
    rpath: tuple[str, ...] = ()
    cuda: bool = False


def fetch(python: Path, folder: Path) -> Path:
    """Download the source into `folder` and return where it is unpacked."""
    wanted = folder / "horovod.txt"
    wanted.write_text(f"horovod=={VERSION} --hash=sha256:{SHA256}\n")
    run(
        f"downloading Horovod {VERSION}",
        [str(python), "-m", "pip", "download", "--no-input", "--no-deps", "--no-cache-dir"]
        + ["--no-build-isolation", "--no-binary", "horovod", "--require-hashes"]
        + ["-d", str(folder), "-r", str(wanted)],
        "check that the package registry is reachable (PIP_INDEX_URL)",
        log="horovod-download",
    )
    with tarfile.open(folder / f"horovod-{VERSION}.tar.gz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # Python 3.10.0 to 3.10.11; the hash above vouches for the content
            archive.extractall(folder)
    return folder / f"horovod-{VERSION}"


def adapt(source: Path, to: Adaptation) -> None:
    """Rewrite the build files of the unpacked `source`."""
    beside = "".join(f";{folder}" for folder in to.rpath)
    compilers = MPI_COMPILERS.format(mpicc=to.mpicc, mpicxx=to.mpicxx)
    raised = f"set(CMAKE_CXX_STANDARD {to.standard})"
    project = raised + RPATH.format(beside=beside) + compilers + ("" if to.cuda else NO_CUDA)
    _replace(source / "CMakeLists.txt", STANDARD, project)
    optimised = "# Add architecture specific optimization flags"
    _replace(source / "CMakeLists.txt", optimised, NO_SYMBOLS + optimised)
    _replace(source / "horovod" / "torch" / "CMakeLists.txt", STANDARD, raised)
    if not to.cuda:
        _replace(source / "cmake" / "Modules" / "FindPytorch.cmake", TORCH_SEARCH, "False")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} of Horovod {VERSION} holds {old!r} not once"
    path.write_text(text.replace(old, new))


def compilers_of(mpicc: Path) -> tuple[Path, Path]:
    """Return the C and C++ compilers of an MPI, given the first: mpicc.mpich has mpicxx.mpich."""
    for old, new in (("mpicc", "mpicxx"), ("mpiicc", "mpiicpc")):
        if mpicc.name.startswith(old):
            beside = mpicc.with_name(new + mpicc.name[len(old) :])
            if beside.exists():
                return mpicc, beside
    raise SetupError(
        f"there is no C++ compiler of that MPI beside {mpicc}: install its development package, or "
        "unset MPICC to use the Open MPI from the package registry."
    )


def plain_mpi(prefix: Path, folder: Path) -> tuple[Path, Path]:
    """Return compilers of the Open MPI wheel in `prefix` whose paths hold no spaces.

    They tell their paths as one line of flags, which nobody can take apart again if the virtual
    environment's has a space. They go by where they lie, so copies lead a life of their own.
    """
    (folder / "bin").mkdir(parents=True)
    for name in ("mpicc", "mpicxx", "opal_wrapper"):
        shutil.copy2(prefix / "bin" / name, folder / "bin" / name)
    for name in ("include", "lib", "share", "etc"):
        if (prefix / name).exists():
            (folder / name).symlink_to(prefix / name)
    return compilers_of(folder / "bin" / "mpicc")
