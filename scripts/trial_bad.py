"""Bad input to set-up: each meets one sentence with its remedy, and a code that is not 0.

All of it in one clone, one fault after the other, so that it is also seen that the next call goes
on from there.
"""

import os
import shutil
from pathlib import Path

from scripts.trial import Trial
from scripts.trial_cases import case, checked, one_sentence


@case
def bad() -> str:
    """No compiler, no network, a broken torch, mpirun and toolkit, in turn; then none of it."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.hide_gpus()
    trial.clone()
    said = [
        _no_compiler(trial),
        _refused(trial, "registry cannot be reached", network=False),
        _broken_torch(trial),
        _broken_mpirun(trial),
        _wrong_toolkit(trial),
    ]
    trial.make("setup")
    return f"{' / '.join(said)} / then torch {checked(trial)}"


def _refused(trial: Trial, *words: str, network: bool = True) -> str:
    """Run set-up, which must refuse with `words`, and return its sentence."""
    said = one_sentence(trial.make("setup", code=None, network=network), *words)
    return said.partition(": ")[2]


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _no_compiler(trial: Trial) -> str:
    path = trial.env["PATH"]
    for name in ("make", "git", "sh", "id", "python3", "uname", "mount", "unshare"):
        if target := shutil.which(name):
            _program(trial.folder / "bin" / name, f'exec "{os.path.realpath(target)}" "$@"')
    trial.env["PATH"] = str(trial.folder / "bin")
    try:
        return _refused(trial, "no C++ compiler", "CXX")
    finally:
        trial.env["PATH"] = path


def _broken_torch(trial: Trial) -> str:
    good = trial.python
    trial.environment_with("numpy")
    site = next((trial.folder / "below" / "lib").glob("python*/site-packages"))
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text("raise ImportError('libc10.so is missing')\n")
    (site / "torch-2.9.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0\n"
    (site / "torch-2.9.0.dist-info" / "METADATA").write_text(metadata)
    try:
        return _refused(trial, "libc10.so is missing", "PYTHON=")
    finally:
        trial.python = good


def _broken_mpirun(trial: Trial) -> str:
    """An MPI that compiles and does not start; it stands on the machine's own mpicc."""
    bin_folder = trial.folder / "mpi" / "bin"
    _program(bin_folder / "mpicc", 'exec mpicc "$@"')
    _program(bin_folder / "mpicxx", 'exec mpicxx "$@"')
    _program(bin_folder / "mpirun", "echo orted: cannot open libopen-rte.so >&2; exit 213")
    trial.env["MPICC"] = str(bin_folder / "mpicc")
    try:
        return _refused(trial, "mpirun", "exit 213")
    finally:
        del trial.env["MPICC"]


def _wrong_toolkit(trial: Trial) -> str:
    """CUDA_HOME names a toolkit of another major release than torch's."""
    said = "Cuda compilation tools, release 11.8, V11.8.89"
    _program(trial.folder / "cuda" / "bin" / "nvcc", f"echo '{said}'")
    trial.env |= {"CUDA_HOME": str(trial.folder / "cuda"), "HVDFILTER_CUDA": "1"}
    try:
        return _refused(trial, "CUDA 11.8", "CUDA_HOME")
    finally:
        del trial.env["CUDA_HOME"], trial.env["HVDFILTER_CUDA"]
