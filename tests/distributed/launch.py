"""Starts real MPI ranks for a test and brings back what they printed.

A test hands over the source of a small program; it runs under `mpirun --oversubscribe` in a
process group of its own, so that a hang costs the test its time limit and leaves no orphans. Its
ranks begin with torch imported, see `warm`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.distributed.warm import SERVERS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def mpirun() -> str:
    """The launcher beside this interpreter, else the first on the path; skips without one."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        pytest.skip("no mpirun: distributed tests need Open MPI")
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """One thread a rank (ranks share the cores) and this checkout on the module path."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{env.get('PYTHONPATH', '')}"
    env["OMP_NUM_THREADS"] = "1"
    env.pop("PYTHONUNBUFFERED", None)  # else print writes its arguments one by one, and ranks mix
    env["OMPI_MCA_btl"] = "^ofi"  # which sleeps for a second as MPI ends
    if os.getuid() == 0:  # Open MPI refuses to run as root unless told twice
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    env.update(extra or {})
    return env


def run_command(
    command: list[str],
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` in its own process group; on time-out kill the group and fail the test."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd or ROOT,
        env=environment(env),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{' '.join(command)[:200]} hung for {timeout} s\n{out[-2000:]}\n{err[-2000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_ranks(
    source: str,
    ranks: int,
    *args: str,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the program text `source` on `ranks` ranks with `args` as its arguments."""
    flags = ["--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    rank = [sys.executable, "-I", "-S", str(HERE / "rank.py"), warm_ranks(), str(SERVERS)]
    if any(name.startswith(("PYTHON", "LD_")) for name in env or ()):  # read as a process starts
        rank = [sys.executable, "-c"]
    program = [*rank, textwrap.dedent(source), *args]
    return run_command([mpirun(), *flags, *program], timeout, env, cwd)


@cache
def warm_ranks() -> str:
    """The folder of the sockets of `warm`'s servers; they end with this process."""
    folder = tempfile.mkdtemp(prefix="warm-")
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "warm.py"), f"{folder}/{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        for number in range(SERVERS)
    ]
    atexit.register(_end, started, folder)
    for server in started:
        assert server.stdout is not None and server.stdout.readline(), "torch cannot be imported"
    return folder


def _end(servers: Iterable[subprocess.Popen[bytes]], folder: str) -> None:
    for server in servers:
        server.communicate(timeout=10)  # closes their standard input, at which they end
    shutil.rmtree(folder)


def check_ranks(source: str, ranks: int, *args: str, timeout: float = 60, **kwargs: object) -> str:
    """`run_ranks` for a program that must succeed; returns its standard output."""
    done = run_ranks(source, ranks, *args, timeout=timeout, **kwargs)  # type: ignore[arg-type]
    assert done.returncode == 0, (
        f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout
