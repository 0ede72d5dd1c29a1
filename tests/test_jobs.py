"""The job scripts: right for bash, and what they hand to each scheduler's launcher.

`srun`, `scontrol`, `jsrun`, `qsub` are stand-ins that note their arguments; where real ranks matter
the stand-in starts them with mpirun. tests/schedulers runs a real Slurm where it can be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo import demo_command
from hvdfilter.cli.parser import build
from hvdfilter.cli.program import COMMANDS
from tests.distributed.launch import environment

ROOT = Path(__file__).resolve().parents[1]
JOBS = ROOT / "jobs"
SCRIPTS = sorted(JOBS.glob("*.sh"))
SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "hvdfilter",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_CPUS_PER_TASK": "3",
}


# What `hvdfilter launch` starts, without what it looks at before: --hosts LIST, --oversubscribe.
LAUNCH = (
    'if [ "$1" = launch ]; then shift; if [ "$1" = --hosts ]; then shift 2; fi\n'
    'if [ "$1" = --oversubscribe ]; then shift; fi; exec "$@"; fi'
)
PMIX = 'case "$*" in --mpi=list) echo none pmix; exit ;; *"=1 true") exit ;; esac\n'


def stand_in(folder: Path, name: str, body: str) -> None:
    """Put a program called `name` into `folder`, which notes its arguments, one a line."""
    program = folder / name
    program.write_text(
        f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"{folder}/{name}.args"\n{body}\n'
    )
    program.chmod(0o755)


def arguments(folder: Path, name: str) -> list[str]:
    """What the stand-in called `name` was given."""
    return (folder / f"{name}.args").read_text().splitlines()


def job(script: str, tmp_path: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a job script in `tmp_path` with the stand-ins in `tmp_path/venv/bin` first on PATH."""
    return subprocess.run(
        ["bash", str(JOBS / script), *args],
        cwd=tmp_path,
        env=environment({"VENV": str(tmp_path / "venv"), **env}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_demo_is_a_command_that_every_mpirun_and_hvdfilter_understand() -> None:
    words = demo_command(3)
    ours = words.index("hvdfilter")
    # Open MPI's launcher and MPICH's have these two options in common.
    assert words[:ours] == ["mpirun", "--bind-to", "none", "-np", "3"]
    options = build(COMMANDS)[0].parse_args(words[ours + 1 :])
    assert options.command == "compare" and options.compare.policy == "kakurenbo"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The folder in which a script expects the environment's programs."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    # Starts what it is to launch, and no more: its own tests are in tests/launch.
    stand_in(folder, "hvdfilter", LAUNCH)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_the_script(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "set -euo pipefail" in script.read_text()
    assert script.name in (JOBS / "README.md").read_text()


def test_srun_gets_pmix_and_the_arguments(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "srun", PMIX + 'echo "threads $OMP_NUM_THREADS"')
    done = job("slurm_srun.sh", tmp_path, "--epochs", "2", **SLURM)
    assert (done.returncode, done.stdout) == (0, "threads 3\n"), done.stderr
    given = arguments(programs, "srun")
    assert given[0] == "--mpi=pmix"
    assert given[given.index("hvdfilter") :] == [
        *("hvdfilter", "train", "--name", "hvdfilter-17", "--resume", "true", "--epochs", "2")
    ]


def test_a_job_started_again_resumes_and_a_preempted_one_is_queued(
    programs: Path, tmp_path: Path
) -> None:
    # 75 is the exit code of a run that was told to stop and wrote its checkpoint.
    stand_in(programs, "srun", PMIX + "exit 75")
    stand_in(programs, "squeue", "echo RUNNING")
    stand_in(programs, "scontrol", "")
    done = job("slurm_srun.sh", tmp_path, NAME="big", **SLURM)
    assert done.returncode == 75
    assert arguments(programs, "srun")[-4:] == ["--name", "big", "--resume", "true"]
    assert arguments(programs, "scontrol") == ["requeue", "17"]


def test_mpirun_inside_slurm_gets_the_hosts_and_hands_on_signals(
    programs: Path, tmp_path: Path
) -> None:
    stand_in(programs, "ompi_info", "echo 'MCA ras: simulator'")
    stand_in(programs, "scontrol", "echo node1; echo node2")
    stand_in(programs, "squeue", "echo RUNNING")
    # Signals its parent, as the scheduler would, then waits for what the script hands on.
    stand_in(
        programs,
        "mpirun",
        "trap 'echo stopped; exit 75' USR1\nkill -USR1 $PPID\n"
        "for i in {1..100}; do sleep 0.1; done",
    )
    done = job("slurm_mpirun.sh", tmp_path, "--model", "cnn", **SLURM)
    assert (done.returncode, "stopped" in done.stdout) == (75, True), done.stderr
    given = arguments(programs, "mpirun")
    assert given[:4] == ["-np", "4", "--host", "node1:2,node2:2"]
    assert given[-2:] == ["--model", "cnn"]


@pytest.mark.parametrize("end", ["clock", "TERM"])
def test_a_pbs_job_warns_itself_and_submits_its_successor(
    end: str, programs: Path, tmp_path: Path
) -> None:
    # 2 s before WARN; qdel's TERM must not bring the job back.
    stand_in(programs, "qstat", "echo '    Resource_List.walltime = 00:00:09'")
    stand_in(programs, "qsub", "echo 8.pbs")
    term = "kill -TERM $PPID\n" if end == "TERM" else ""
    waiting = "for i in {1..100}; do sleep 0.1; done"
    stand_in(programs, "mpirun", f"trap 'echo stopped; exit 75' USR1\n{term}{waiting}")
    nodes = tmp_path / "nodes"
    nodes.write_text("node1\nnode1\nnode2\nnode2\n")
    pbs = {"PBS_JOBID": "7.pbs", "PBS_O_WORKDIR": str(tmp_path), "PBS_NODEFILE": str(nodes)}
    done = job("pbs.sh", tmp_path, ARGS="--epochs 2", WARN="7", QSUB="-q long", **pbs)
    assert (done.returncode, "stopped" in done.stdout) == (75, True), done.stderr
    given = arguments(programs, "mpirun")
    assert given[:4] == ["-np", "4", "--hostfile", str(nodes)]
    assert given[-7:] == ["train", "--name", "hvdfilter-7", "--resume", "true", "--epochs", "2"]
    if end == "clock":
        successor = ["-q", "long", "-v", "NAME,VENV,ARGS,QSUB,WARN", "jobs/pbs.sh"]
        assert arguments(programs, "qsub") == successor
    else:
        assert not (programs / "qsub.args").exists()


@pytest.mark.parametrize("body", ["echo none pmi2", '[ "$1" = --mpi=list ] && echo none pmix'])
def test_srun_without_pmix_or_its_library_is_refused(
    body: str, programs: Path, tmp_path: Path
) -> None:
    stand_in(programs, "srun", body)
    done = job("slurm_srun.sh", tmp_path, **SLURM)
    assert done.returncode == 2
    assert "srun has no PMIx" in done.stderr and "slurm_mpirun.sh" in done.stderr


def test_a_slurm_job_that_is_being_cancelled_is_not_queued(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "srun", PMIX + "exit 75")
    stand_in(programs, "squeue", "echo COMPLETING")
    stand_in(programs, "scontrol", "")
    assert job("slurm_srun.sh", tmp_path, **SLURM).returncode == 75
    assert not (programs / "scontrol.args").exists()


def test_jsrun_gets_one_resource_set_a_host(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "jsrun", "")
    hosts = "batch 1 node1 42 node2 42"
    done = job("lsf_jsrun.sh", tmp_path, LSB_MCPU_HOSTS=hosts, ARGS="--epochs 2")
    assert done.returncode == 0, done.stderr
    given = arguments(programs, "jsrun")
    # 2 nodes of 6 ranks, each of which sees its node's 6 GPUs.
    assert given[: given.index("--bind")] == [
        *("--nrs", "2", "--rs_per_host", "1", "--tasks_per_rs", "6"),
        *("--cpu_per_rs", "42", "--gpu_per_rs", "6"),
    ]
    assert given[-2:] == ["--epochs", "2"]


def test_hosts_are_counted_and_checked(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "mpirun", "")
    assert job("hosts.sh", tmp_path, "--epochs", "2", HOSTS="a:4,b:2").returncode == 0
    given = arguments(programs, "mpirun")
    assert given[:4] == ["-np", "6", "--host", "a:4,b:2"]
    assert given[-4:] == [str(programs / "hvdfilter"), "train", "--epochs", "2"]
    # The check itself is hvdfilter's, told of in tests/launch/test_hosts.py.
    assert arguments(programs, "hvdfilter")[:3] == ["launch", "--hosts", "a:4,b:2"]
    assert job("hosts.sh", tmp_path, HOSTS="a:4", OVERSUBSCRIBE="1").returncode == 0
    assert arguments(programs, "hvdfilter")[3] == "--oversubscribe"


def real_launchers(programs: Path) -> str:
    """PATH with the stand-ins first and this environment's mpirun and horovodrun next."""
    beside = Path(sys.executable).parent
    if shutil.which("horovodrun", path=str(beside)) is None:
        pytest.skip("Horovod is not installed in this environment")
    return f"{programs}{os.pathsep}{beside}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("script", "launcher"),
    [("hosts.sh", "mpirun"), ("hosts.sh", "horovodrun"), ("slurm_srun.sh", "mpirun")],
)
def test_two_real_ranks_start(script: str, launcher: str, tmp_path: Path, programs: Path) -> None:
    """The launchers accept the flags and start two ranks; srun is played by mpirun."""
    path = real_launchers(programs)
    while_flags = 'while [ "$1" != hvdfilter ]; do shift; done\n'
    stand_in(programs, "srun", f'{PMIX}{while_flags}exec mpirun --oversubscribe -np 2 "$@"')
    told = 'echo "rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE"'
    stand_in(programs, "hvdfilter", f"{LAUNCH}\n{told}")
    env = {**SLURM, "PATH": path, "HOSTS": "localhost:2", "LAUNCHER": launcher}
    done = job(script, tmp_path, "--epochs", "2", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank 0 of 2" in done.stdout
    assert "rank 1 of 2" in done.stdout


@pytest.mark.distributed
def test_the_local_script_trains_on_two_ranks(tmp_path: Path, programs: Path) -> None:
    path = real_launchers(programs)
    (programs / "hvdfilter").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m hvdfilter.cli "$@"\n'
    )
    (programs / "hvdfilter").chmod(0o755)
    short = ("--epochs", "1", "--warmup_epochs", "0", "--limit", "256", "--name", "short")
    done = job("local.sh", tmp_path, *short, PATH=path, RANKS="2")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len((tmp_path / "runs" / "short" / "metrics.jsonl").read_text().splitlines()) == 1
