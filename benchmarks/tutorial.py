"""The two scripts of the tutorial, by turns: what adopting hvdfilter saved them.

    python -m benchmarks.tutorial --rounds 5 --csv benchmarks/results/tutorial.csv

One row a round and script: wall seconds of the whole command, start-up included, CPU seconds of it
and both ranks, and the test accuracy that it prints. `give_way` is the plain script with Open MPI
told to give way while it waits, as `import hvdfilter` tells it: what is then saved, hiding saved.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.machine import describe, rank_environment

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "plain": ("plain_horovod.py", {}),
    "give_way": ("plain_horovod.py", {"OMPI_MCA_mpi_yield_when_idle": "1"}),
    "filtered": ("filtered_horovod.py", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--csv", type=Path, help="file for the table; rewritten after every round")
    options = parser.parse_args()
    rows: list[dict[str, str]] = []
    for number in range(options.rounds):
        names = list(SCRIPTS)[number % 3 :] + list(SCRIPTS)[: number % 3]
        for name in names:
            rows.append({"round": str(number + 1), "script": name, **one_run(name, options.epochs)})
            print("  ".join(f"{title} {value}" for title, value in rows[-1].items()), flush=True)
        if options.csv:
            with open(options.csv, "w", newline="") as file:
                file.write(f"# {describe(torch.device('cpu'))}\n")
                table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                table.writeheader()
                table.writerows(rows)


def one_run(name: str, epochs: int) -> dict[str, str]:
    """Start one script on two ranks, as the tutorial does."""
    script, more = SCRIPTS[name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["mpirun", "--bind-to", "none", "-np", "2", "python"]
    command += [str(ROOT / "examples" / script), "--epochs", str(epochs)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = rank_environment(PATH=path, OMP_NUM_THREADS="1", **more)
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "epochs": str(epochs),
        "seconds": f"{seconds:.1f}",
        "cpu_seconds": f"{used:.1f}",
        "accuracy": done.stdout.split("test accuracy")[1].strip(),
    }


if __name__ == "__main__":
    main()
