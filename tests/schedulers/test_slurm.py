"""The Slurm scripts under a real Slurm: they train, and a job that was stopped ends as undisturbed.

Two nodes with a rank each: the least with which a warning, a requeue and MPI cross hosts. 40 short
epochs of a small network: long enough to be stopped in, on a machine that other work shares.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.trials import result
from tests.schedulers.slurm import Slurm

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

JOBS = Path(__file__).resolve().parents[2] / "jobs"
TASKS = ["--ntasks-per-node=1", "--cpus-per-task=1", "--time=10"]
TRAIN = ["--model", "cnn:4", "--limit", "400", "--epochs", "40"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    # Not pytest's folder, whose long name leaves too little of the 107 bytes of a socket's.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        cluster = Slurm(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to submit from, with this checkout's hvdfilter as its environment."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".venv" / "bin").mkdir(parents=True)
    program = folder / ".venv" / "bin" / "hvdfilter"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hvdfilter "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slurm: Slurm, home: Path) -> Path:
    """The run that nobody stopped, started by srun."""
    job = submit(slurm, home, "slurm_srun.sh", "undisturbed")
    ended = slurm.wait(job, "COMPLETED", "FAILED")
    assert ended["ExitCode"] == "0:0", (home / "undisturbed.log").read_text()
    return home / "runs" / "undisturbed"


def submit(slurm: Slurm, home: Path, script: str, name: str, *options: str) -> str:
    own = [f"--job-name={name}", f"--output={name}.log", *TASKS, *options]
    return slurm.submit(*own, str(JOBS / script), *TRAIN, cwd=home, NAME=name)


def lines(run: Path) -> list[dict[str, object]]:
    path = run / "metrics.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def until_it_trains(run: Path, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not lines(run):
        assert time.monotonic() < end, f"{run} has no epoch after {timeout:g} s"
        time.sleep(0.1)


def test_srun_trains_on_two_nodes(undisturbed: Path) -> None:
    assert len(lines(undisturbed)) == 40
    # Batches of 32: ranks that had not met would each take 13 steps for all 400 samples.
    assert lines(undisturbed)[0]["steps"] == 7


@pytest.mark.parametrize(
    ("script", "how"),
    [
        # By a job of higher priority: TERM to every process but the batch shell's.
        ("slurm_mpirun.sh", "preempted"),
        pytest.param("slurm_srun.sh", "preempted", marks=pytest.mark.slow),
        # What the time limit's warning is: USR1 to every process of the ranks, or to the shell.
        pytest.param("slurm_srun.sh", "warned", marks=pytest.mark.slow),
        pytest.param("slurm_mpirun.sh", "warned", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_job_is_queued_again_and_ends_with_the_same_bits(
    slurm: Slurm, home: Path, undisturbed: Path, script: str, how: str
) -> None:
    name = f"{script.removesuffix('.sh')}-{how}"
    job = submit(slurm, home, script, name)
    until_it_trains(home / "runs" / name)
    if how == "warned":
        to = ["--batch"] if script == "slurm_mpirun.sh" else []
        slurm.cancel(job, "--signal=USR1", *to)
    else:
        slurm.submit("--partition=high", "-N2", "--exclusive", "--wrap=true", cwd=home)
    slurm.wait(job, "PENDING", "COMPLETED", "FAILED")
    stopped = len(lines(home / "runs" / name))
    ended = slurm.wait(job, "COMPLETED", "FAILED")
    log = (home / f"{name}.log").read_text()
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), log
    assert 0 < stopped < 40
    # What came before the requeue is still in the log.
    assert "checkpoint written" in log and log.count("epoch   1/40") == 1
    assert result(home / "runs" / name) == result(undisturbed)


def test_a_cancelled_job_does_not_come_back(slurm: Slurm, home: Path) -> None:
    # scancel sends TERM as preemption does: the ranks end with 75 either way.
    job = submit(slurm, home, "slurm_srun.sh", "cancelled")
    until_it_trains(home / "runs" / "cancelled")
    slurm.cancel(job)
    ended = slurm.wait(job, "CANCELLED", "PENDING", "FAILED", "COMPLETED")
    log = (home / "cancelled.log").read_text()
    assert "checkpoint written" in log
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0"), log


def test_a_slurm_without_pmix_is_told_in_one_sentence(
    slurm: Slurm, home: Path, tmp_path: Path
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for plugin in slurm.plugins():
        if "pmix" not in plugin.name:
            (plugins / plugin.name).symlink_to(plugin)
    without = tmp_path / "slurm.conf"
    without.write_text(f"PluginDir={plugins}\n{slurm.configuration.read_text()}")
    # Slurm itself sets SLURM_CONF for a job.
    script = f"SLURM_CONF={without} exec bash {JOBS}/slurm_srun.sh"
    started = time.monotonic()
    job = slurm.submit("--output=pmix.log", f"--wrap={script}", cwd=home)
    ended = slurm.wait(job, "FAILED", "COMPLETED")
    assert ended["ExitCode"] == "2:0"
    said = (home / "pmix.log").read_text().splitlines()
    assert len(said) == 1 and "srun has no PMIx" in said[0] and "slurm_mpirun.sh" in said[0]
    assert time.monotonic() - started < 30


def test_ranks_that_srun_starts_and_mpi_does_not_connect_are_refused(
    slurm: Slurm, home: Path
) -> None:
    # What an MPI that knows nothing of Slurm sees: Open MPI ends by itself if it sees more.
    blind = 'for v in ${!SLURM@}; do [ $v = SLURM_STEP_NUM_TASKS ] || unset $v; done; exec "$@"'
    command = f"srun --mpi=none bash -c '{blind}' - {home}/.venv/bin/hvdfilter train"
    job = slurm.submit("--output=lonely.log", *TASKS, "-N2", f"--wrap={command}", cwd=home)
    ended = slurm.wait(job, "FAILED", "COMPLETED")
    said = (home / "lonely.log").read_text()
    assert ended["ExitCode"] == "1:0"
    assert said.count("the launcher started 2 ranks (SLURM_STEP_NUM_TASKS) but each of them") == 2
    assert not list((home / "runs").glob("digits*"))
