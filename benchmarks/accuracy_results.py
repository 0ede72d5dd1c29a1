"""The results of `benchmarks.accuracy`: finished runs on disk, and what they say together.

A finished run is one line of JSON in the file of the worker that ran it; a line that a kill cut
short is no run. The tables are made anew from all lines whenever they are asked for.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from hvdfilter.errors import InputError

Row = dict[str, Any]
# The controls: all samples for as many steps, and as many random ones in every epoch.
FULL, RANDOM = "full, as many steps", "random, as many steps"


class Store:
    """The runs of one comparison in `folder`; `worker` writes a file of its own there.

    Raises `InputError` where another process is that worker, or the folder holds runs of another
    recipe.
    """

    def __init__(self, folder: Path, recipe: Row, worker: int) -> None:
        self.folder, self.recipe = folder, recipe
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"worker-{worker}.jsonl"
        self._file = open(path, "ab")  # kept open for the lock
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(
                f"{path} is written by another process: give each its own --worker I/N"
            ) from None
        text = path.read_bytes()
        self._file.truncate(text.rfind(b"\n") + 1)
        try:
            self.rows()
        except InputError:
            self._file.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rows(self) -> list[Row]:
        """The finished runs of all workers, each once."""
        found: dict[str, Row] = {}
        for path in sorted(self.folder.glob("worker-*.jsonl")):
            text = path.read_text()
            for line in text[: text.rfind("\n") + 1].splitlines():
                row = json.loads(line)
                if row["recipe"] != self.recipe:
                    raise InputError(
                        f"{path} holds runs of another recipe ({row['recipe']}): choose another "
                        "folder with --runs"
                    )
                found.setdefault(row["key"], row)
        return list(found.values())

    def append(self, row: Row) -> None:
        """Add a finished run."""
        line = json.dumps({"recipe": self.recipe, **row}) + "\n"
        self._file.write(line.encode())
        self._file.flush()


def worker(text: str) -> tuple[int, int]:
    """Which worker of how many: `--worker I/N`."""
    number, _, workers = text.partition("/")
    if not (number.isdecimal() and workers.isdecimal() and int(number) < int(workers)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 0 to N - 1")
    return int(number), int(workers)


def policy_key(policy: str, options: Row, seed: int) -> str:
    """What tells a run of a policy from all others of the comparison."""
    return json.dumps([policy, options, seed], sort_keys=True)


def full_key(steps: int, seed: int) -> str:
    """The control of all samples, in as many steps."""
    return json.dumps([FULL, steps, seed])


def random_key(drawn: Sequence[int], scale_lr: bool, seed: int) -> str:
    """The control of as many random samples in every epoch."""
    return json.dumps([RANDOM, list(drawn), scale_lr, seed])


def index(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows by key; runs of `full` and `random` are found as the controls that they are, too."""
    found = {}
    for row in rows:
        if row["policy"] == "full":
            found[full_key(row["steps"], row["seed"])] = row
        if row["policy"] == "random":
            found[random_key(row["drawn"], row["scale_lr"], row["seed"])] = row
        found[row["key"]] = row
    return found


@dataclass(frozen=True)
class Interval:
    """The mean of n values and half of its 95 % interval, by Student's t; nan for one value."""

    mean: float
    half: float
    n: int

    @staticmethod
    def of(values: Sequence[float]) -> Interval:
        """Of at least one value."""
        n, mean = len(values), statistics.fmean(values)
        if n == 1:
            return Interval(mean, math.nan, 1)
        half = stats.t.ppf(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n)
        return Interval(mean, float(half), n)

    def __str__(self) -> str:
        half = "" if math.isnan(self.half) else f" ± {100 * self.half:.2f}"
        return f"{100 * self.mean:.2f}{half}"


@dataclass(frozen=True)
class Line:
    """A policy at one fraction, over its seeds, beside its controls on the same seeds.

    gain: accuracy over the random control's, seed by seed; full: of the unshortened run.
    """

    policy: str
    fraction: float | None
    seeds: int
    hidden: float
    steps: float
    accuracy: Interval
    full: Interval
    full_steps: Interval
    random_steps: Interval
    gain: Interval
    wall: dict[str, float]
    cpu: dict[str, float]
    cpu_full: float

    @property
    def verdict(self) -> str:
        """Against random at equal steps: an interval that holds 0 decides nothing."""
        if self.policy in ("full", "random"):
            return "control"
        if math.isnan(self.gain.half) or abs(self.gain.mean) <= self.gain.half:
            return "undecided"
        return "better" if self.gain.mean > 0 else "worse"


def lines(rows: Sequence[Row]) -> list[Line]:
    """One line a policy and fraction, of the seeds whose controls are all there."""
    found = index(rows)
    groups: dict[tuple[str, float | None], list[tuple[Row, Row, Row, Row]]] = {}
    whole = {row["seed"]: row for row in rows if row["policy"] == "full"}
    for row in rows:
        if row["policy"] in (FULL, RANDOM):
            continue
        seed = row["seed"]
        full = whole.get(seed)
        short = found.get(full_key(row["steps"], seed))
        chance = (
            full
            if row["policy"] == "full"
            else found.get(random_key(row["drawn"], row["scale_lr"], seed))
        )
        if full and short and chance:
            group = groups.setdefault((row["policy"], row["fraction"]), [])
            group.append((row, full, short, chance))
    order = sorted(groups, key=lambda group: (group[1] or 0.0, group[0] != "full", group[0]))
    return [_line(*group, groups[group]) for group in order]


def _line(policy: str, fraction: float | None, runs: Sequence[tuple[Row, Row, Row, Row]]) -> Line:
    own, full, short, chance = (list(rows) for rows in zip(*runs, strict=True))

    def accuracy(rows: Sequence[Row]) -> Interval:
        return Interval.of([row["accuracy"] for row in rows])

    def seconds(clock: str) -> dict[str, float]:
        return {part: statistics.median(row[clock][part] for row in own) for part in own[0][clock]}

    return Line(
        policy=policy,
        fraction=fraction,
        seeds=len(own),
        hidden=statistics.fmean(row["hidden"] for row in own),
        steps=statistics.fmean(row["steps"] for row in own),
        accuracy=accuracy(own),
        full=accuracy(full),
        full_steps=accuracy(short),
        random_steps=accuracy(chance),
        gain=Interval.of(
            [mine["accuracy"] - other["accuracy"] for mine, other in zip(own, chance, strict=True)]
        ),
        wall=seconds("wall"),
        cpu=seconds("cpu"),
        cpu_full=statistics.median(row["cpu"]["total"] for row in full),
    )


def markdown(table: Sequence[Line]) -> str:
    """The table for a person: accuracies in %, CPU seconds of a run (medians over seeds)."""
    head = (
        *("policy", "asked to hide %", "hid %", "seeds", "steps", "accuracy"),
        *("full, equal epochs", "full, equal steps", "random, equal steps"),
        *("minus random, paired", "against random"),
        *("CPU s", "training", "re-scoring", "selection", "full's CPU s"),
    )
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in table:
        cells = (
            line.policy,
            "own default" if line.fraction is None else f"{100 * line.fraction:.0f}",
            f"{100 * line.hidden:.1f}",
            str(line.seeds),
            f"{line.steps:.0f}",
            *map(str, (line.accuracy, line.full, line.full_steps, line.random_steps, line.gain)),
            line.verdict,
            f"{line.cpu['total']:.2f}",
            *(f"{line.cpu[part]:.3f}" for part in ("training", "rescoring", "selection")),
            f"{line.cpu_full:.2f}",
        )
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def write_csv(path: Path, table: Sequence[Line], heading: str) -> None:
    """Every figure of the table, one row a policy and fraction."""
    with open(path, "w", newline="") as file:
        file.write(f"# {heading}\n")
        writer = csv.writer(file, lineterminator="\n")
        measured = ("accuracy", "full", "full_steps", "random_steps", "gain")
        parts = list(table[0].wall) if table else []
        writer.writerow(
            ["policy", "fraction", "seeds", "hidden", "steps"]
            + [f"{name}{what}" for name in measured for what in ("", "_ci95")]
            + ["verdict"]
            + [f"{clock}_{part}" for clock in ("wall", "cpu") for part in parts]
        )
        for line in table:
            fraction = "" if line.fraction is None else line.fraction
            intervals: list[Interval] = [getattr(line, name) for name in measured]
            writer.writerow(
                [line.policy, fraction, line.seeds, f"{line.hidden:.4f}", f"{line.steps:.1f}"]
                + [f"{value:.5f}" for i in intervals for value in (i.mean, i.half)]
                + [line.verdict]
                + [f"{clock[part]:.4f}" for clock in (line.wall, line.cpu) for part in parts]
            )
