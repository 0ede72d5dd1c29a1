"""`hvdfilter launch` around small programs: codes, warnings at any moment, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Deaf for a while, as Python is while it imports torch; then saves and ends with 75 when warned.
RANK = """
import os, signal, subprocess, sys, time
folder, deaf = sys.argv[1], float(sys.argv[2])
open(f"{folder}/started", "w").close()
time.sleep(deaf)
def save(number, frame):
    open(f"{folder}/saved", "w").close()
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
open(f"{folder}/ready", "w").close()
while True:
    time.sleep(0.05)
"""


def launch(*command: str, **options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "hvdfilter", "launch"]
    for name, value in options.items():
        words += [f"--{name}", value]
    return subprocess.Popen(
        [*words, *command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def outcome(job: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what was said, once the job and all that it started have ended."""
    said = job.communicate(timeout=20)[1]
    return job.returncode, said


def wait_for(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} never came"
        time.sleep(0.02)


def running(token: str) -> list[str]:
    """Processes with this word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if token.encode() in words:
                found.append(entry.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("deaf", ["1.0", "0.0"])
def test_a_warning_waits_until_it_is_heard(
    number: signal.Signals, deaf: str, tmp_path: Path
) -> None:
    job = launch(sys.executable, "-c", RANK, str(tmp_path), deaf)
    wait_for(tmp_path / ("started" if deaf == "1.0" else "ready"))
    job.send_signal(number)
    code, said = outcome(job)
    assert code == 75
    assert (tmp_path / "saved").exists()
    assert "the ranks are told to save and end" in said


# What an mpirun is to look at: it starts a rank here and, as within Slurm, its daemons by srun.
MPIRUN = """
import signal, subprocess, sys
python, rank, folder = sys.argv[1:]
srun = subprocess.Popen(["srun", "-c", "import time; time.sleep(60)"], executable=python)
rank = subprocess.Popen([python, "-c", rank, folder, "0"])
signal.signal(signal.SIGUSR1, lambda number, frame: rank.send_signal(number))
code = rank.wait()
srun.kill()
sys.exit(code)
"""


def test_mpirun_is_warned_and_not_the_srun_below_it(tmp_path: Path) -> None:
    python = sys.executable
    named = ["bash", "-c", 'exec -a mpirun "$@"', "-", python, "-c", MPIRUN]
    job = launch(*named, python, RANK, str(tmp_path), patience="10")
    wait_for(tmp_path / "ready")
    job.send_signal(signal.SIGUSR1)
    assert outcome(job)[0] == 75
    assert (tmp_path / "saved").exists()


def test_codes_and_signals_of_the_job_are_told() -> None:
    assert outcome(launch("true"))[0] == 0
    assert outcome(launch("sh", "-c", "exit 3"))[0] == 3
    assert outcome(launch("sh", "-c", "kill -KILL $$"))[0] == 137


def test_what_outlives_the_job_is_ended(tmp_path: Path) -> None:
    token = f"{tmp_path}/orphan"
    # Its own session and no parent: what horovodrun's ranks are when it dies.
    orphan = f"setsid sh -c 'trap \"\" TERM; exec sleep 300' {token} & exit 4"
    started = time.monotonic()
    assert outcome(launch("bash", "-c", orphan))[0] == 4
    assert not running(token)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("second", [False, True])
def test_whichever_of_its_processes_is_killed_nothing_is_left(second: bool, tmp_path: Path) -> None:
    job = launch(sys.executable, "-c", RANK, str(tmp_path), "0")
    wait_for(tmp_path / "ready")
    victim = job.pid
    if second:
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        victim = int(children[0])
    os.kill(victim, signal.SIGKILL)
    assert outcome(job)[0] == (137 if second else -signal.SIGKILL)
    until = time.monotonic() + 15
    while running(str(tmp_path)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not running(str(tmp_path))


def test_a_job_that_does_not_end_is_ended(tmp_path: Path) -> None:
    deaf_to_all = "import signal, time; signal.signal(signal.SIGUSR1, lambda *a: None)\n"
    job = launch(
        *(sys.executable, "-c", f"{deaf_to_all}open(r'{tmp_path}/ready', 'w')\ntime.sleep(300)"),
        patience="1",
    )
    wait_for(tmp_path / "ready")
    job.send_signal(signal.SIGTERM)
    code, said = outcome(job)
    assert code not in (0, 75) and "has not ended within 1 s" in said


def test_a_failing_job_is_started_again_so_often(tmp_path: Path) -> None:
    count = f"echo x >> {tmp_path}/tries; exit 9"
    job = launch("sh", "-c", count, restarts="2")
    code, said = outcome(job)
    assert code == 9 and "ended with code 9; it is started again (2 of 2)" in said
    assert (tmp_path / "tries").read_text().count("x") == 3
    recovers = f"[ -e {tmp_path}/once ] && exit 0; touch {tmp_path}/once; exit 1"
    assert outcome(launch("sh", "-c", recovers, restarts="5"))[0] == 0
    for final in (2, 75):  # bad input, and stopped on purpose
        (tmp_path / "tries").unlink(missing_ok=True)
        again = f"echo x >> {tmp_path}/tries; exit {final}"
        assert outcome(launch("sh", "-c", again, restarts="2"))[0] == final
        assert (tmp_path / "tries").read_text().count("x") == 1


def launched(words: list[str]) -> subprocess.CompletedProcess[str]:
    """`hvdfilter launch` with these words."""
    return subprocess.run(
        [sys.executable, "-m", "hvdfilter", "launch", *words],
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "a command is missing"),
        (["/nowhere/mpirun"], "/nowhere/mpirun cannot be started: No such file"),
        (["--restarts", "-1", "true"], "restarts must be 0 or more"),
        (
            ["--restarts", "2", "mpirun", "-np", "2", "hvdfilter", "train", "--name", "a"],
            "must go on: add --name NAME --resume true",
        ),
    ],
)
def test_what_cannot_be_launched_is_said(words: list[str], sentence: str) -> None:
    done = launched(words)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--json", "mpirun"], "--json is for the command that it starts: put it behind that"),
        (["--color", "never", "true"], "--color is for the command that it starts"),
        (["--color=never", "true"], "--color is for the command that it starts"),
        (["--json"], "--json is for the command that it starts"),
        (["--nonsense", "true"], "unrecognized arguments: --nonsense"),
        (["--restarts", "x", "true"], "--restarts: invalid int value: 'x'"),
        (["--restarts"], "--restarts: expected one argument"),
    ],
)
def test_options_that_it_does_not_have_are_one_sentence(words: list[str], sentence: str) -> None:
    done = launched(words)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("hvdfilter launch: error: ") and sentence in done.stderr


def test_debug_shows_where_a_refusal_came_from() -> None:
    code, said = outcome(launch("--debug", "/nowhere/mpirun"))
    assert code == 2 and said.startswith("Traceback") and "launch/job.py" in said
    assert said.splitlines()[-1].startswith("hvdfilter launch: error: /nowhere/mpirun cannot be")
    code, said = outcome(launch("--debug", "--restarts", "-1", "true"))
    assert code == 2 and said.startswith("Traceback")
    # Behind the command it is the command's own, as all options are.
    code, said = outcome(launch("sh", "-c", 'echo "$@" >&2', "-", "--debug", "--json", "--color"))
    assert (code, said) == (0, "--debug --json --color\n")


FAILS = """
import sys
from hvdfilter.launch import command, hosts
def fail(*words):
    raise ZeroDivisionError("odd")
hosts.check = fail
sys.exit(command.main(["--hosts", "localhost:1", "true"]))
"""


def test_what_nobody_foresaw_is_not_swallowed() -> None:
    done = subprocess.run([sys.executable, "-c", FAILS], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "ZeroDivisionError: odd" in done.stderr


# What `hvdfilter launch --hosts` runs: an mpirun that waits for a host that is gone.
LEFT = """
import sys
from hvdfilter.launch import guard, job
job._ALONE = 0.5
sys.exit(guard.guarded(lambda: job.Job([sys.argv[1]], 300.0, many=sys.argv[2] == "many").run()))
"""


@pytest.mark.parametrize("many", ["many", "one"])
def test_a_launcher_that_waits_for_a_host_that_is_gone_is_ended(many: str, tmp_path: Path) -> None:
    """Only where there are other hosts: on one, a launcher that has no ranks may start some."""
    mpirun = tmp_path / "mpirun"
    # `sleep` is the rank; then the shell waits, at most 6 s, without starting anything.
    mpirun.write_text(
        f"#!/bin/bash\nmkfifo {tmp_path}/pipe\nexec 3<>{tmp_path}/pipe\nsleep 1.5\n"
        "read -t 6 -u 3\nexit 7\n"
    )
    mpirun.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", LEFT, str(mpirun), many], capture_output=True, text=True, timeout=30
    )
    told = "no rank has been left on this host for 0.5 s: another does not answer"
    assert (told in done.stderr) == (many == "many")
    assert (done.returncode == 7) == (many == "one")


def test_open_mpi_is_told_how_soon_a_host_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    show = ("sh", "-c", "env | grep _oob_tcp_keepalive_ | sort >&2; exit 3")
    monkeypatch.setenv("OMPI_MCA_oob_tcp_keepalive_time", "7")
    code, said = outcome(launch(*show))
    assert code == 3 and said.split() == [
        "OMPI_MCA_oob_tcp_keepalive_intvl=30",
        "OMPI_MCA_oob_tcp_keepalive_probes=8",
        "OMPI_MCA_oob_tcp_keepalive_time=7",  # the user's own
        "PRTE_MCA_oob_tcp_keepalive_intvl=30",
        "PRTE_MCA_oob_tcp_keepalive_probes=8",
        "PRTE_MCA_oob_tcp_keepalive_time=60",
    ]
