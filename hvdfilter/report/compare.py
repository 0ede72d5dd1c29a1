"""A run in one row, from its `metrics.jsonl`, and the `full` run to set it against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hvdfilter.errors import InputError, warn
from hvdfilter.training.run_folder import option_of, read_config, read_metrics

Found = TypeVar("Found")
COST_PARTS = {
    "training": "training steps",
    "rescoring": "re-scoring hidden samples",
    "features": "scoring the features",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "waiting": "waiting for the slowest rank",
    "data": "waiting for data, in passes",
    "scoring": "scoring, inside these passes",
    "exchange": "exchange of scores",
    "agreement": "agreement on the mask",
    "history": "counts of scores and classes",
}
OVERHEAD = ("scoring", "features", "exchange", "agreement", "history")
# What two runs must share for their results to be comparable.
SAME_WORK = (
    *("data", "model", "epochs", "batch_size", "limit", "seed"),
    *("batch_growth", "batch_growth_epoch", "optimizer"),
    *("lr", "momentum", "weight_decay", "warmup_epochs"),
    *("extrapolation", "shaping", "shaping_options"),
    *("accumulate", "precision", "fp16_allreduce"),
)


@dataclass(frozen=True)
class Summary:
    """A whole run: sums over its epochs, and the accuracy after the last."""

    folder: Path
    policy: str
    ranks: int
    epochs: int
    accuracy: float
    trained: int
    hidden: float
    steps: int
    gradient_bytes: int
    allreduces: int
    total: float
    cpu: float
    seconds: dict[str, float]

    @property
    def overhead(self) -> float:
        """Share of the run spent on scoring, exchange and agreement."""
        return sum(self.seconds.get(part, 0.0) for part in OVERHEAD) / self.total


@dataclass(frozen=True)
class Row:
    """One line of a comparison: what it says, how to show it, and what a difference means."""

    label: str
    value: Callable[[Summary], float]
    show: str
    relative: bool = True
    part: bool = False

    def cell(self, run: Summary) -> str:
        """The value of one run, for a person."""
        value = self.value(run)
        return "-" if math.isnan(value) else format(value, self.show)

    def difference(self, run: Summary, other: Summary) -> str:
        """How `run` differs from `other`: relative where that says something."""
        mine, theirs = self.value(run), self.value(other)
        if math.isnan(mine) or math.isnan(theirs):
            return ""
        if not self.relative:
            return f"{mine - theirs:+{self.show}}"
        return f"{mine / theirs - 1:+.1%}" if theirs else ""


def _seconds(part: str) -> Callable[[Summary], float]:
    return lambda run: run.seconds.get(part, 0.0)


ROWS = (
    Row("test accuracy", lambda run: run.accuracy, ".4f", relative=False),
    Row("samples trained", lambda run: run.trained, ",d"),
    Row("hidden, mean of epochs", lambda run: run.hidden, ".1%", relative=False),
    Row("optimiser steps", lambda run: run.steps, ",d"),
    Row("gradient allreduced, MB a rank", lambda run: run.gradient_bytes / 1e6, ",.1f"),
    Row("tensors allreduced", lambda run: run.allreduces, ",d"),
    Row("CPU seconds, all ranks", lambda run: run.cpu, ".2f"),
    Row("seconds in all", lambda run: run.total, ".2f"),
    *(
        Row(meaning, _seconds(p), ".3f", relative=False, part=True)
        for p, meaning in COST_PARTS.items()
    ),
    Row("scoring + exchange + agreement", lambda run: run.overhead, ".2%", relative=False),
)


def summarise(folder: Path) -> Summary:
    """Sum up a run; `InputError` when `folder` holds no finished epoch."""
    return sum_up(folder, read_config(folder), read_metrics(folder))


def sum_up(folder: Path, config: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> Summary:
    """`summarise`, of a run that was read already."""
    if not epochs:
        raise InputError(f"{folder} has no finished epoch yet")
    seconds: Counter[str] = Counter()
    for record in epochs:
        seconds.update(record["seconds"])

    def total(name: str) -> Any:
        return sum(record[name] for record in epochs)

    return Summary(
        folder=folder,
        policy=config["policy"],
        ranks=epochs[-1]["ranks"],
        epochs=len(epochs),
        accuracy=epochs[-1].get("test_accuracy", math.nan),  # a script may not have measured it
        trained=total("kept"),
        hidden=total("hidden") / total("samples"),
        steps=total("steps"),
        gradient_bytes=total("gradient_bytes"),
        allreduces=total("allreduce_calls"),
        total=seconds.pop("total"),
        cpu=sum(record.get("cpu_seconds", math.nan) for record in epochs),  # older runs have none
        seconds=dict(seconds),
    )


def find_full(folder: Path, read: Callable[[Path], Found]) -> tuple[Found | None, list[str]]:
    """The newest finished `full` run beside `folder` that did the same work on as many ranks.

    read: makes of its folder what is returned, such as `summarise`; what it refuses as damaged is
    passed over, and also returned is a sentence for each of these.
    """
    mine, ranks = read_config(folder), read_metrics(folder)[-1]["ranks"]
    passed_over: list[str] = []
    if mine["policy"] == "full":
        return None, passed_over
    others = sorted(folder.parent.glob("*/metrics.jsonl"), key=_written)
    for metrics in reversed(others):
        try:
            config = read_config(metrics.parent)
        except InputError:
            continue  # a run that is being made, or not one of ours
        same = all(option_of(config, name) == option_of(mine, name) for name in SAME_WORK)
        if not same or config["policy"] != "full":
            continue
        try:
            epochs = read_metrics(metrics.parent)
            if len(epochs) == mine["epochs"] and epochs[-1]["ranks"] == ranks:
                return read(metrics.parent), passed_over
        except InputError as damaged:
            passed_over.append(str(damaged).rstrip("."))
    return None, passed_over


def say_left_out(sentences: Sequence[str]) -> None:
    """On the terminal, what a comparison is without."""
    for sentence in sentences:
        warn(f"left out: {sentence}")


def _written(path: Path) -> float:
    """When a neighbour was last written; it may be gone meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
