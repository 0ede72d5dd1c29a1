"""Runs `jobs/hosts.sh` on hosts: a small training that takes a second once it has started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.hosts import ROOT, Hosts

#: The network has 68 kB of gradient: a few epochs of it outweigh all else that crosses a link.
SMALL = ["--model", "cnn:32", "--batch_size", "16", "--limit", "320", "--epochs", "3"]


def command(runs: Path, name: str, *more: str) -> list[str]:
    """jobs/hosts.sh as a user calls it, training into runs/name."""
    where = ["--warmup_epochs", "0", "--runs", str(runs), "--name", name]
    return ["bash", str(ROOT / "jobs" / "hosts.sh"), *SMALL, *where, *more]


def environment(hosts: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """HOSTS and what goes with it; the cores are all hosts' together, so a rank takes one."""
    return {"HOSTS": hosts, "VENV": sys.prefix, "OMP_NUM_THREADS": "1", **(more or {})}


def train(
    on: Hosts, hosts: str, runs: Path, name: str, *more: str, launcher: str = "mpirun"
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    env = environment(hosts, {"LAUNCHER": launcher})
    return on.run(command(runs, name, *more), env=env, timeout=90)


def metrics(runs: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    lines = (runs / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line in which hvdfilter says what is wrong."""
    said = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(set(said)) == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return said[0].partition("error: ")[2]
