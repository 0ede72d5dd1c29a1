"""Worlds of several sizes in turn, with hvdfilter and in plain Horovod: what `--ranks` starts.

Every world is started `--repeats` times, all of them before any again, so that a busy spell of the
machine falls on all. Efficiency is the images a rank got through, against the smallest world of the
same kind: the batch of a rank is the same everywhere.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, rank_environment

COLUMNS = ("what", "ranks", "hidden", "img_per_sec_per_rank", "samples_per_sec", "efficiency")
# Of one world's own flags, those that a plain loop knows.
PLAIN = (
    *("model", "batch_size", "image_size"),
    *("num_batches_per_iter", "num_warmup_batches", "num_iters"),
)
OURS = ("hide", "fp16_allreduce", "no_cuda")


def sweep(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of medians, one a kind of world and size; printed, and written where `--csv` says."""
    results: defaultdict[tuple[str, float, int], list[dict[str, Any]]] = defaultdict(list)
    for _ in range(options.repeats):
        for ranks in sorted(options.ranks):
            for module in ("benchmarks.plain_horovod", "benchmarks.scaling"):
                for row in _world(module, ranks, options):
                    results[row["what"], row["hidden"], row["ranks"]].append(row)
    rows, smallest = [], {}
    for (what, hidden, ranks), worlds in sorted(results.items()):
        covered, per_rank = (
            statistics.median(value for world in worlds for value in world[name])
            for name in ("samples_per_sec", "img_per_sec_per_rank")
        )
        base = smallest.setdefault((what, hidden), covered / ranks)
        rows.append(
            {
                **{"what": what, "ranks": ranks, "hidden": hidden},
                "img_per_sec_per_rank": round(per_rank, 2),
                "samples_per_sec": round(covered, 2),
                "efficiency": round(covered / ranks / base, 3),
            }
        )
    _show(rows, options)
    return rows


def _world(module: str, ranks: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    flags = PLAIN if module == "benchmarks.plain_horovod" else PLAIN + OURS
    command = ["mpirun", "--bind-to", "none", "-np", str(ranks), sys.executable, "-m", module]
    command += ["--json"] if module == "benchmarks.scaling" else []
    for name in flags:
        value = getattr(options, name)
        if value is not False:
            command += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    env = rank_environment(
        OMP_NUM_THREADS=str(options.threads), OMPI_MCA_rmaps_base_oversubscribe="1"
    )
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    print(f"{'what':14} ranks  hidden  img/sec per rank  samples/sec  efficiency")
    for row in rows:
        print(
            f"{row['what']:14} {row['ranks']:5}  {row['hidden']:6.0%}  "
            f"{row['img_per_sec_per_rank']:16.1f}  {row['samples_per_sec']:11.1f}  "
            f"{row['efficiency']:10.2f}"
        )
    if options.csv:
        with open(Path(options.csv), "w", newline="") as file:
            file.write(f"# {describe_run(options)}\n")
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def describe_run(options: argparse.Namespace) -> str:
    """The machine, and what was asked of it."""
    import torch

    work = f"{options.model}, batch {options.batch_size}, {options.threads} threads a rank"
    torch.set_num_threads(options.threads)
    return f"{describe(torch.device('cpu'))}, {work}, {options.repeats} starts of each world"
