"""Worlds of several sizes and links in turn, beside plain Horovod's: what `--ranks` starts.

Every world is started `--repeats` times, all of them before any again, so that a busy spell of the
machine falls on all. Plain Horovod runs twice, as it is and with idle threads told to give way,
which `import hvdfilter` does by itself; "/ plain" is against the faster. Efficiency is samples a
second and rank, against a single rank (else the smallest world) of the same kind; a single rank
uses no link.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.launching import MEMORY, Launcher
from benchmarks.machine import describe
from hvdfilter.waiting import FEW_SPINS, SPINS

GRADIENTS = ("steps", "gradient_bytes", "gradient_bytes_saved")
COLUMNS = (
    *("what", "scaling", "link", "ranks", "hidden"),
    *("img_per_sec_per_rank", "samples_per_sec", "p20", "p80", "efficiency", "against_plain"),
    *("communication_share", *GRADIENTS, "epoch_seconds"),
)
# Of one world's own flags, those that a plain loop knows.
PLAIN = (
    *("model", "batch_size", "image_size", "fp16_allreduce", "strong"),
    *("num_batches_per_iter", "num_warmup_batches", "num_iters", "no_cuda"),
)
OURS = ("hide",)
# Plain Horovod as it is, and told by hand how to wait, as `import hvdfilter` tells it by itself.
TOLD = {"OMPI_MCA_mpi_yield_when_idle": "1", SPINS: FEW_SPINS}
PLAIN_WORLDS: dict[str, dict[str, str]] = {"plain Horovod": {}, "plain, yielding": TOLD}
Rows = list[dict[str, Any]]
Kind = tuple[str, float, str, int]  # what, hidden, link, ranks


def sweep(options: argparse.Namespace) -> Rows:
    """Rows of medians, one a kind of world; printed, and written where `--csv` says."""
    worlds: defaultdict[Kind, Rows] = defaultdict(list)
    ranks = sorted(set(options.ranks))
    places = [(MEMORY, 1)] * (1 in ranks) + [
        (link, size) for link in options.links for size in ranks if size > 1
    ]
    linked = [link for link in options.links if link != MEMORY and max(ranks) > 1]
    with Launcher(linked, max(ranks), options.threads) as launcher:
        for _ in range(options.repeats):
            for link, size in places:
                said = [
                    launcher.run(
                        "benchmarks.plain_horovod",
                        *(size, [*_flags(PLAIN, options), "--what", what], link),
                        env=told,
                    )
                    for what, told in PLAIN_WORLDS.items()
                ]
                flags = [*_flags(PLAIN + OURS, options), "--json"]
                said.append(launcher.run("benchmarks.scaling", size, flags, link))
                for row in (row for text in said for row in json.loads(text.splitlines()[-1])):
                    worlds[row["what"], row["hidden"], link, size].append(row)
    rows = table(worlds, "strong" if options.strong else "weak")
    show(rows, options)
    return rows


def table(worlds: dict[Kind, Rows], scaling: str) -> Rows:
    """A row for each kind of world, of the medians over all its iterations.

    "against_plain": plain Horovod as it is or giving way, whichever is faster there.
    """
    rows: Rows = []
    alone: dict[tuple[str, float, str], float] = {}
    rates = {kind: _every(starts) for kind, starts in worlds.items()}
    plain: dict[tuple[str, int], float] = {}
    for (what, _, link, ranks), every in rates.items():
        if what in PLAIN_WORLDS:
            plain[link, ranks] = max(statistics.median(every), plain.get((link, ranks), 0.0))
    for (what, hidden, link, ranks), starts in sorted(worlds.items(), key=_order):
        every = rates[what, hidden, link, ranks]
        rate = statistics.median(every)
        own = statistics.median(v for start in starts for v in start["img_per_sec_per_rank"])
        share = statistics.median(start["communication_share"] for start in starts)
        # A world of one is the base of all links, for it uses none.
        if ranks == 1:
            alone[what, hidden, ""] = rate
        base = alone.get((what, hidden, "")) or alone.setdefault((what, hidden, link), rate / ranks)
        row = {
            **{"what": what, "scaling": scaling, "link": link, "ranks": ranks, "hidden": hidden},
            "img_per_sec_per_rank": round(own, 2),
            "samples_per_sec": round(rate, 2),
            "p20": round(every[len(every) // 5], 2),
            "p80": round(every[-1 - len(every) // 5], 2),
            "efficiency": round(rate / ranks / base, 3),
            "against_plain": round(rate / plain[link, ranks], 3),
            "communication_share": round(share, 3),
            **{
                name: starts[0][name]
                for name in ("steps", "gradient_bytes", "gradient_bytes_saved")
            },
            "epoch_seconds": round(starts[0]["samples"] / rate, 4),
        }
        rows.append(row)
    return rows


def _every(starts: Rows) -> list[float]:
    """Samples a second of all iterations of all starts, in order."""
    return sorted(value for start in starts for value in start["samples_per_sec"])


def show(rows: Rows, options: argparse.Namespace) -> None:
    """Print the table, and write it where `--csv` says; or one JSON list."""
    if options.json:
        print(json.dumps(rows))
    else:
        print(
            f"{'what':16}{'scaling':>8}{'link':>10}{'ranks':>6}{'hidden':>7}{'img/sec/rank':>13}"
            f"{'samples/sec':>12}{'p20 to p80':>18}{'efficiency':>11}{'/ plain':>8}"
            f"{'communicating':>14}{'MB saved':>9}"
        )
        for row in rows:
            spread = f"{row['p20']:.1f} to {row['p80']:.1f}"
            print(
                f"{row['what']:16}{row['scaling']:>8}{row['link']:>10}{row['ranks']:6}"
                f"{row['hidden']:7.0%}{row['img_per_sec_per_rank']:13.1f}"
                f"{row['samples_per_sec']:12.1f}{spread:>18}{row['efficiency']:11.2f}"
                f"{row['against_plain']:8.2f}{row['communication_share']:14.1%}"
                f"{row['gradient_bytes_saved'] / 1e6:9.1f}"
            )
    if options.csv:
        with open(Path(options.csv), "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            file.write(f"# {describe_run(options)}\n")
            writer.writeheader()
            writer.writerows(rows)


def describe_run(options: argparse.Namespace) -> str:
    """The machine, and what was asked of it."""
    work = f"{options.model}, batch {options.batch_size}, {options.threads} threads a rank"
    torch.set_num_threads(options.threads)
    return f"{describe(torch.device('cpu'))}, {work}, {options.repeats} starts of each world"


def _order(item: tuple[Kind, Rows]) -> tuple[str, int, bool, float, str]:
    """By link and size, a single rank first, and plain Horovod before what is set against it."""
    what, hidden, link, ranks = item[0]
    return (link if ranks > 1 else "", ranks, what not in PLAIN_WORLDS, hidden, what)


def _flags(names: Sequence[str], options: argparse.Namespace) -> list[str]:
    flags = []
    for name in names:
        value = getattr(options, name)
        if value is not False:
            flags += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return flags
