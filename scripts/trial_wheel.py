"""hvdfilter installed as any other package, without set-up, Horovod and MPI: a world of one."""

import os
import subprocess
from pathlib import Path

from scripts.trial import Trial
from scripts.trial_cases import case, expect

NEWEST = (2, 28)  # of glibc, which the wheel may ask for


@case
def wheel() -> str:
    """The wheel, the sdist and `pip install .` in a bare environment."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.hide_gpus()
    trial.clone()
    trial.environment_with("build", "auditwheel")
    tools = trial.python.parent
    trial.run(str(tools / "python"), "-m", "build")
    (made,) = (trial.checkout / "dist").glob("*.whl")
    (source,) = (trial.checkout / "dist").glob("*.tar.gz")
    tag = _platform(trial.run(str(tools / "auditwheel"), "show", str(made)))

    bare = trial.folder / "bare"
    subprocess.run([trial.python, "-m", "venv", bare], check=True)
    pip = (str(bare / "bin" / "python"), "-m", "pip", "install", "-q")
    trial.run(*pip, str(made))
    _works(trial, bare)
    for what in (str(source), "."):
        trial.run(*pip, "--force-reinstall", "--no-deps", what)
        _works(trial, bare)
    version = trial.run(
        str(bare / "bin" / "python"), "-c", "import torch; print(torch.__version__)"
    )
    return f"torch {version.strip()}, {tag}: a world of one trains, doctor says what is missing"


def _platform(said: str) -> str:
    """The platform tag that auditwheel gives the wheel, which must be old enough."""
    tag = next(word for word in said.replace('"', " ").split() if word.startswith("manylinux_"))
    glibc = tuple(map(int, tag.split("_")[1:3]))
    expect(glibc <= NEWEST, f"the wheel asks for {tag}")
    return tag


def _works(trial: Trial, bare: Path) -> None:
    path = {"PATH": f"{bare / 'bin'}{os.pathsep}{trial.env['PATH']}"}
    runs = ("--runs", str(trial.folder / "runs"))
    trial.run("hvdfilter", "train", "--epochs", "2", *runs, env=path)
    said = trial.run("hvdfilter", "doctor", env=path)
    for word in ("horovod is not installed", "mpi4py is not installed", "nothing is wrong"):
        expect(word in said, f"doctor does not say {word!r}:\n{said}")
