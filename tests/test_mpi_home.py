"""A script that nobody's mpirun started finds the Open MPI wheel, hvdfilter imported or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvdfilter.mpi_home import find_mpi_home
from scripts import venv
from tests.distributed.launch import environment


def run_alone(source: str) -> subprocess.CompletedProcess[str]:
    """Run a program without a launcher, in an environment that tells nothing of MPI."""
    env = environment()
    for name in [name for name in env if name.startswith(("OPAL_", "OMPI_COMM_", "PMIX_"))]:
        del env[name]
    return subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=90
    )


@pytest.mark.distributed
def test_a_script_that_starts_horovod_first_runs_without_mpirun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("horovod")
    if not Path(sys.prefix, "lib", "libmpi.so.40").exists():
        pytest.skip("the MPI here is no wheel of this environment")
    monkeypatch.setattr(venv, "VENV", tmp_path)
    venv.site_packages().mkdir(parents=True)
    venv.tell_mpi_home(wheel=True)
    # As Python does at its start, for the folder that it takes for its own.
    start = f"import site; site.addsitedir({str(venv.site_packages())!r})\n"
    done = run_alone(start + "import horovod.torch as hvd; hvd.init(); print(hvd.size())")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    venv.tell_mpi_home(wheel=False)  # set up again, with another MPI
    assert not list(venv.site_packages().iterdir())


@pytest.mark.distributed
def test_importing_hvdfilter_is_enough() -> None:
    pytest.importorskip("horovod")
    source = "import hvdfilter, horovod.torch as hvd; hvd.init(); print(hvd.size())"
    done = run_alone(source)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_wheel_below_a_virtual_environment_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPAL_PREFIX", "")  # noted, so that it is restored
    monkeypatch.delenv("OPAL_PREFIX")
    below, own = tmp_path / "below", tmp_path / "own"
    for name in ("lib/libmpi.so.40", "bin/opal_wrapper"):
        (below / name).parent.mkdir(parents=True)
        (below / name).touch()
    sites = [str(home / "lib" / "python3.11" / "site-packages") for home in (own, below)]
    find_mpi_home(str(own), ["", "/x", *sites[:1]])
    assert "OPAL_PREFIX" not in os.environ
    find_mpi_home(str(own), sites)
    assert os.environ["OPAL_PREFIX"] == str(below)
