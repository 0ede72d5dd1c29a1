"""Runs of `make demo`, one after the other: whether its result can be relied upon.

    python -m benchmarks.demo --runs 10 --csv benchmarks/results/demo.csv

One row a run: seconds and CPU seconds of the three policies, as their records sum them up, the
share hidden and the accuracies; `ratio` is the share of time saved over the share of samples
hidden. `command` is the wall time of the whole command, start-up included.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import describe, rank_environment
from hvdfilter.report.compare import Summary, summarise

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ("kakurenbo", "full", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="file for the table; rewritten after every run")
    options = parser.parse_args()
    rows: list[dict[str, str]] = []
    for number in range(1, options.runs + 1):
        rows.append({"run": str(number), **one_run(options.ranks)})
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        if options.csv:
            write(options.csv, rows)
    good = sum(float(row["ratio"]) >= 0.6 for row in rows)
    print(f"time saved / share hidden is at least 0.6 in {good} of {len(rows)} runs")


def demo_command(ranks: int) -> list[str]:
    """What `make demo` runs once everything is set up."""
    # As from a shell: a make around this one would have its own words printed too.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    recipe = subprocess.run(
        ["make", "-n", "demo", f"NP={ranks}"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    start = recipe.stdout.index("mpirun ")
    return shlex.split(recipe.stdout[start:].replace("\\\n", " "))


def one_run(ranks: int) -> dict[str, str]:
    """Train the three and sum up what they recorded."""
    env = rank_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with tempfile.TemporaryDirectory() as folder:
        command = [*demo_command(ranks), "--runs", folder, "--name", "demo"]
        started = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{shlex.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        runs = {policy: summarise(Path(folder, f"demo-{policy}")) for policy in POLICIES}
    return row(runs) | {"command": f"{seconds:.1f}"}


def row(runs: dict[str, Summary]) -> dict[str, str]:
    """The figures of one run of the demo."""
    subject, full = runs["kakurenbo"], runs["full"]
    cells = {"hidden": f"{subject.hidden:.4f}"}
    for name, show in (("total", ".2f"), ("cpu", ".2f"), ("accuracy", ".4f"), ("steps", "d")):
        for policy, run in runs.items():
            title = {"total": "seconds", "cpu": "cpu_seconds"}.get(name, name)
            cells[f"{title}_{policy}"] = format(getattr(run, name), show)
    cells["ratio"] = f"{(1 - subject.total / full.total) / subject.hidden:.3f}"
    cells["cpu_ratio"] = f"{(1 - subject.cpu / full.cpu) / subject.hidden:.3f}"
    return cells


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """All rows so far, below the machine and the versions."""
    with open(path, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
