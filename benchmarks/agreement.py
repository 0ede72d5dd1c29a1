"""What agreement costs: time, bytes and memory, against gathering everything.

    python -m benchmarks.agreement                 worlds of 1, 2 and 4 ranks: a table, the targets
                                                   checked
    python -m benchmarks.agreement --big 0         without the 1e8 samples (which take 3 GB)
    mpirun -np 8 python -m benchmarks.agreement    the table of that world alone

Every time is the slowest rank's, from a barrier on; the table shows the median and, in the CSV, the
20th and 80th percentiles. Variants are interleaved. "sent" are bytes a rank sends, "extra" is what
the peak of its memory rises by. `gather` gathers all keys on every rank and partitions them;
`allreduce3` is what KAKURENBO's scripts do with the scores: three float64 allreduces of N.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.launching import MEMORY, Launcher
from benchmarks.machine import describe
from benchmarks.memory import peak_rise, reset_peak
from hvdfilter.agreement import (
    Blocks,
    Collective,
    KeepMask,
    ScoreBook,
    SoloCollective,
    agree,
    mpi_collective,
    mpi_world_size,
)

IMAGENET, CIFAR = 1_281_167, 50_000
FIELDS = ("loss", "confidence", "correct")  # what KAKURENBO needs, 12 bytes an observation
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("what", "samples", "ranks", "bytes", "p20_ms", "p50_ms", "p80_ms", "sent", "extra_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[CIFAR, IMAGENET])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--big", type=float, default=1e8, help="samples of the 2-rank memory test")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "agreement.csv")
    parser.add_argument("--world", choices=("small", "big"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.world or mpi_world_size() > 1:
        rows = measure_world(options)
        if options.world:
            print_rows(rows)
        elif rows:
            print_table(rows)
        return
    rows = []
    for ranks in options.ranks:
        rows += start_world(ranks, "small", options)
    if options.big:
        rows += start_world(2, "big", options)
    print_table(rows)
    print_targets(rows, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


# -- one world ------------------------------------------------------------------------------------


def measure_world(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of this world on rank 0, none elsewhere."""
    torch.set_num_threads(1)
    collective = mpi_collective() if mpi_world_size() > 1 else SoloCollective()
    if options.world == "big":
        samples = int(options.big)
        rows = [*selection(collective, samples, 3), *book_memory(collective, samples)]
    else:
        rows = []
        for samples in options.samples:
            rows += selection(collective, samples, options.repeats)
            rows += exchange(collective, samples, options.repeats)
    if collective.rank:
        rows = []
    collective.close()
    return rows


def selection(collective: Collective, samples: int, repeats: int) -> list[dict[str, Any]]:
    """Selection and mask of 70 % of heavily tied keys (50 values), by radix and by gathering."""
    blocks = Blocks(samples, collective.size)
    rng = np.random.default_rng(collective.rank)
    key = rng.integers(0, 50, blocks.length(collective.rank)).astype(np.float32) / 50
    keep = samples * 7 // 10
    masks: dict[str, Any] = {}

    def radix() -> None:
        masks["agree"] = agree(key, None, samples, keep, collective)

    def gather() -> None:
        masks["gather"] = gather_and_partition(key, blocks, keep, collective)

    rows = time_each(collective, {"agree": radix, "gather": gather}, repeats, samples)
    assert masks["agree"] == KeepMask.from_bools(masks["gather"]), "the two masks differ"
    return rows


def gather_and_partition(
    key: np.ndarray, blocks: Blocks, keep: int, collective: Collective
) -> np.ndarray:
    """The plain way: all keys on every rank, a partition, ties by id."""
    lengths = [blocks.length(rank) for rank in range(blocks.size)]
    everyone = collective.allgather_flat(key, lengths)
    threshold = np.partition(everyone, everyone.size - keep)[everyone.size - keep]
    mask = everyone > threshold
    missing = keep - int(np.count_nonzero(mask))
    mask[np.flatnonzero(everyone == threshold)[:missing]] = True
    return mask


def exchange(collective: Collective, samples: int, repeats: int) -> list[dict[str, Any]]:
    """One epoch's observations, dealt out to the ranks in random order, brought to their owners."""
    ids = np.random.default_rng(1).permutation(samples)[collective.rank :: collective.size]
    value = torch.rand(ids.size)
    seen = {"loss": value, "confidence": value, "correct": value > 0.5}
    book = ScoreBook(samples, FIELDS, collective)
    batches = [torch.from_numpy(ids).split(256), *(v.split(256) for v in seen.values())]

    def note() -> None:
        for batch in zip(*batches, strict=True):
            book.observe(batch[0], dict(zip(seen, batch[1:], strict=True)))

    def move() -> None:
        book.exchange()

    def allreduce3() -> None:
        for values in seen.values():
            whole = np.zeros(samples)
            whole[ids] = values.numpy()
            collective.allreduce(whole)

    variants = {"observe": note, "exchange": move, "allreduce3": allreduce3}
    return time_each(collective, variants, repeats, samples)


def book_memory(collective: Collective, samples: int) -> list[dict[str, Any]]:
    """An epoch of a large book, exchanged every 2^18 observations: memory beside the columns."""
    blocks = Blocks(samples, collective.size)
    own = blocks.length(collective.rank)
    before = reset_peak()
    started = time.perf_counter()
    book = ScoreBook(samples, FIELDS, collective)
    step = 1 << 18
    for at in range(0, samples // collective.size, step):
        stop = min(at + step, samples // collective.size)
        ids = torch.arange(at, stop) * collective.size + collective.rank
        value = torch.rand(ids.numel())
        book.observe(ids, {"loss": value, "confidence": value, "correct": value > 0.5})
        book.exchange()
    book.end_epoch()
    agree(book.column("loss"), None, samples, samples * 7 // 10, collective)
    seconds = time.perf_counter() - started
    fields = sum(book.column(name).nbytes for name in (*FIELDS, "age")) + blocks.num_bytes
    extra = peak_rise(before)
    print(
        f"rank {collective.rank}: book of {own} samples, fields and mask {fields / 1e6:.0f} MB, "
        f"peak {extra:.0f} MB",
        file=sys.stderr,
    )
    row = dict.fromkeys(COLUMNS, 0.0) | {"what": "book epoch", "samples": samples}
    row |= {"ranks": collective.size, "p50_ms": 1e3 * seconds, "extra_mb": extra}
    needed = {**row, "what": "book fields and mask", "p50_ms": 0.0, "extra_mb": fields / 1e6}
    return [row, needed]


def time_each(
    collective: Collective,
    variants: dict[str, Callable[[], Any]],
    repeats: int,
    samples: int,
    size: int = 0,
) -> list[dict[str, Any]]:
    """One row for each variant: all run once to warm up, then in turn, `repeats` times."""
    seconds = np.zeros((len(variants), repeats + 1))
    sent = dict.fromkeys(variants, 0)
    extra = dict.fromkeys(variants, 0.0)
    for turn in range(repeats + 1):
        for number, (name, run) in enumerate(variants.items()):
            before, traffic = reset_peak() if turn == 1 else 0.0, collective.traffic
            collective.barrier()
            started = time.perf_counter()
            run()
            seconds[number, turn] = time.perf_counter() - started
            sent[name] = collective.traffic - traffic
            if turn == 1:
                extra[name] = peak_rise(before)
    slowest = collective.allreduce(seconds[:, 1:], "max") * 1e3
    rows = []
    for name, times in zip(variants, slowest, strict=True):
        p20, p50, p80 = np.percentile(times, [20, 50, 80])
        rows.append(
            {"what": name, "samples": samples, "ranks": collective.size, "bytes": size}
            | {"p20_ms": p20, "p50_ms": p50, "p80_ms": p80}
            | {"sent": sent[name], "extra_mb": extra[name]}
        )
    return rows


# -- all worlds -----------------------------------------------------------------------------------


def start_world(ranks: int, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run this file on `ranks` ranks and read the rows from its output."""
    arguments = ["--world", kind, "--big", str(options.big), "--repeats", str(options.repeats)]
    arguments += ["--samples", *map(str, options.samples)]
    with Launcher([MEMORY], ranks) as launcher:
        said = launcher.run("benchmarks.agreement", ranks, arguments)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))


def print_table(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'what':<22}{'samples':>12}{'ranks':>6}{'bytes':>10}{'ms':>11}{'sent':>12}"
        f"{'extra MB':>10}"
    )
    for row in rows:
        print(
            f"{row['what']:<22}{row['samples']:>12}{row['ranks']:>6}{row['bytes']:>10.0f}"
            f"{row['p50_ms']:>11.3f}{row['sent']:>12.0f}{row['extra_mb']:>10.1f}"
        )


def print_targets(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Each target beside what was measured; a line for every one this run can tell."""

    def find(what: str, samples: float, ranks: int) -> dict[str, Any] | None:
        wanted = (what, int(samples), ranks)
        return next((r for r in rows if (r["what"], r["samples"], r["ranks"]) == wanted), None)

    def say(text: str, value: float, limit: float, unit: str = "") -> None:
        verdict = "holds" if value <= limit else "MISSED"
        print(f"{verdict:<7} {text}: {value:.4g}{unit} (at most {limit:g}{unit})")

    print()
    ours = find("agree", IMAGENET, 4)
    if ours:
        say("selection and mask, 1,281,167 tied scores, 4 ranks", ours["p50_ms"], 20, " ms")
    ours, theirs = find("agree", options.big, 2), find("gather", options.big, 2)
    if ours and theirs:
        ratio = ours["p50_ms"] / theirs["p50_ms"]
        say(f"time against gathering, {options.big:g} samples, 2 ranks", ratio, 0.5)
        ratio = ours["extra_mb"] / theirs["extra_mb"]
        say("extra memory against gathering, the same", ratio, 0.15)
    epoch, needed = find("book epoch", options.big, 2), find("book fields and mask", options.big, 2)
    if epoch and needed:
        ratio = epoch["extra_mb"] / needed["extra_mb"]
        say("memory of an epoch against its fields and masks, the same", ratio, 1.3)
    costs = [find(what, CIFAR, 2) for what in ("observe", "exchange", "agree")]
    if all(costs):
        spent = sum(row["p50_ms"] for row in costs if row) / 1e3
        share = 100 * spent / resnet9_epoch()
        say("observation, exchange and agreement of a ResNet-9 CIFAR-10 epoch", share, 1, " %")


def resnet9_epoch(batch: int = 128, steps: int = 3) -> float:
    """Seconds of a training epoch of 50,000 images on this machine, from a few timed steps."""
    from hvdfilter import models

    model = models.make("resnet9", 3, 10, 32)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:])) * CIFAR / batch


if __name__ == "__main__":
    main()
