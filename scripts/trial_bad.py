"""Bad input to set-up: each meets one sentence with its remedy, and a code that is not 0.

Cases of `scripts.try_setup` that end before anything is built, so they take seconds.
"""

import os
import shutil
from pathlib import Path

from scripts.trial import Trial
from scripts.trial_cases import case, one_sentence


def _refused(trial: Trial, *words: str, network: bool = True) -> str:
    """Run set-up, which must refuse with `words`, and return its sentence."""
    said = one_sentence(trial.make("setup", code=None, network=network), *words)
    return said.partition(": ")[2]


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@case
def no_compiler() -> str:
    """No C++ compiler on the path."""
    trial = Trial()
    trial.clone()
    for name in ("make", "git", "sh", "id", "python3", "uname"):
        target = shutil.which(name)
        if target:
            _program(trial.folder / "bin" / name, f'exec "{os.path.realpath(target)}" "$@"')
    trial.env["PATH"] = str(trial.folder / "bin")
    return _refused(trial, "no C++ compiler", "CXX")


@case
def no_network() -> str:
    """No network."""
    trial = Trial()
    trial.clone()
    return _refused(trial, "registry cannot be reached", network=False)


@case
def broken_torch() -> str:
    """A Python whose torch does not import."""
    trial = Trial()
    trial.environment_with("numpy")
    site = next((trial.folder / "below" / "lib").glob("python*/site-packages"))
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text("raise ImportError('libc10.so is missing')\n")
    (site / "torch-2.9.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0\n"
    (site / "torch-2.9.0.dist-info" / "METADATA").write_text(metadata)
    trial.clone()
    return _refused(trial, "libc10.so is missing", "PYTHON=")


@case
def broken_mpirun() -> str:
    """An MPI whose mpirun does not start."""
    trial = Trial()
    trial.clone()
    bin_folder = trial.folder / "mpi" / "bin"
    mpicc = _program(bin_folder / "mpicc", 'exec mpicc.openmpi "$@"')
    _program(bin_folder / "mpicxx", 'exec mpicxx.openmpi "$@"')
    _program(bin_folder / "mpirun", "echo orted: cannot open libopen-rte.so >&2; exit 213")
    trial.env["MPICC"] = str(mpicc)
    return _refused(trial, "mpirun", "exit 213")


@case
def wrong_toolkit() -> str:
    """CUDA_HOME names a toolkit of another major release than torch's."""
    trial = Trial()
    trial.clone()
    said = "Cuda compilation tools, release 11.8, V11.8.89"
    _program(trial.folder / "cuda" / "bin" / "nvcc", f"echo '{said}'")
    trial.env["CUDA_HOME"] = str(trial.folder / "cuda")
    trial.env["HVDFILTER_CUDA"] = "1"
    return _refused(trial, "CUDA 11.8", "CUDA_HOME")
