"""`python -m scripts.fuzz --files 500`: damaged files for every reader, by seed.

Each file must be read or refused in one sentence, within a time and a gigabyte beyond what the
well-formed set needs; a traceback, a crash, a hang or more memory is a fault, and named with its
seed. Exit code 1 if there is any. The sets are `fuzz_sets`, the damage is `damage`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# By name, and not from fuzz_sets: this process needs no torch.
READERS = (
    *("parquet", "idx", "idx.gz", "cifar10-binary", "cifar10-python", "imagefolder"),
    *("webdataset", "webdataset-index", "decoded-cache"),
    *("scores", "checkpoint", "config.yaml", "options", "metrics.jsonl", "cache", "keep-mask"),
)
FAULTS = ("traceback", "sentence", "crash", "hang", "memory")
START_SECONDS = 120


@dataclass
class Tally:
    """What one reader made of its files. faults: (seed, outcome, last words)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0

    def note(self, seed: int, outcome: str, said: str) -> None:
        """Count one file."""
        self.outcomes[outcome] += 1
        if outcome in FAULTS:
            self.faults.append((seed, outcome, said))


def main() -> int:
    """Fuzz the readers asked for, one after another; 1 if there were faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=500, help="damaged files for each reader")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--readers", nargs="+", default=READERS, choices=READERS, metavar="READER")
    parser.add_argument("--limit", type=float, default=20, help="seconds that a file may take")
    options = parser.parse_args()
    faults = 0
    print(f"{'reader':18}{'files':>7}{'read':>7}{'refused':>9}", end="")
    print("".join(f"{fault:>11}" for fault in FAULTS) + f"{'MB more':>9}{'seconds':>9}")
    for reader in options.readers:
        tally = fuzz(reader, options.first, options.first + options.files, options.limit)
        counts = tally.outcomes
        print(f"{reader:18}{counts.total():7}{counts['read']:7}{counts['refused']:9}", end="")
        print("".join(f"{counts[fault]:11}" for fault in FAULTS), end="")
        print(f"{tally.peak / 1e6:9.0f}{tally.seconds:9.1f}", flush=True)
        for seed, outcome, said in tally.faults[:5]:
            print(f"  seed {seed}: {outcome}\n    " + said.strip().replace("\n", "\n    "))
        faults += len(tally.faults)
    return 1 if faults else 0


def fuzz(reader: str, first: int, last: int, limit: float) -> Tally:
    """Have one reader read the files of the seeds from `first` to `last`, in few processes."""
    tally, started = Tally(), time.perf_counter()
    while first < last:
        begun = first - 1
        outcome = "crash"
        with tempfile.TemporaryDirectory() as folder:
            for line in _lines(reader, folder, first, last, limit):
                if line is None:
                    outcome = "hang"
                elif "begun" in line:
                    begun = line["begun"]
                elif "seed" in line:
                    said, peak = line["said"], line["peak"]
                    tally.peak = max(tally.peak, peak)
                    tally.note(line["seed"], line["outcome"], said)
                    first = line["seed"] + 1
        if first < last:
            if begun < first:
                raise SystemExit(f"{reader}: the well-formed set could not be read")
            tally.note(begun, outcome, "")
            first = begun + 1
    tally.seconds = time.perf_counter() - started
    return tally


def _lines(
    reader: str, folder: str, first: int, last: int, limit: float
) -> Iterator[dict[str, Any] | None]:
    """What one reader says, line by line; None, at the end, if it had to be ended."""
    command = [sys.executable, "-m", "scripts.fuzz_reader", reader, folder, str(first), str(last)]
    # glibc gives each thread an arena of address space, which the limit would count.
    env = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
    env["HVDFILTER_DATA_CACHE"] = os.path.join(folder, "cache")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        pipe, text = process.stdout.fileno(), b""
        wait: float = START_SECONDS
        while select.select([pipe], [], [], wait)[0]:
            some = os.read(pipe, 1 << 16)
            if not some:
                return
            *lines, text = (text + some).split(b"\n")
            yield from map(json.loads, lines)
            wait = limit
        process.kill()
        yield None


if __name__ == "__main__":
    sys.exit(main())
