"""Runs told apart by what they computed: those that differ only in their seed are one group.

A group has a name that says no more than tells it from the others, and its curves are means over
its runs, with Student's 95 % interval of the mean where there are several seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError
from hvdfilter.report.compare import SAME_WORK, Summary, sum_up
from hvdfilter.report.page.history import check
from hvdfilter.report.page.labels import labels_of
from hvdfilter.training.resuming import FREE_TO_CHANGE
from hvdfilter.training.run_folder import option_of, read_config, read_metrics

Record = dict[str, Any]
# What a run may have otherwise and yet be a repetition of another.
_REPEATED = {*FREE_TO_CHANGE, "seed"} - {"batch_size", "accumulate"}
# `compare`'s random run hides as many as another run, whose name this is.
SUBJECT = "as_many_as"
_BASELINES = ("random", "full")


@dataclass(frozen=True)
class Run:
    """A run folder, read once."""

    folder: Path
    config: dict[str, Any]
    records: list[Record]
    summary: Summary


@dataclass(frozen=True)
class Course:
    """A measure over the epochs of a group. epochs: from 1; half: of the interval, or None."""

    epochs: NDArray[np.int64]
    mean: NDArray[np.float64]
    half: NDArray[np.float64] | None


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, in the order of their seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def summary(self) -> Summary:
        """The mean over its seeds, of each the mean of its runs."""
        return mean_of([mean_of([run.summary for run in runs]) for runs in self.by_seed.values()])

    @property
    def by_seed(self) -> dict[int | str, list[Run]]:
        """Its runs by their seeds: a seed that was run again is no further evidence."""
        found: dict[int | str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(seed_of(run), []).append(run)
        return found

    def interval(
        self, values: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Mean of a measure over the seeds, and half of its Student's 95 % interval.

        values: [runs, ...], in the order of `runs`. None in the place of an interval where there is
        a single seed.
        """
        ends = np.cumsum([len(runs) for runs in self.by_seed.values()])
        of_seed = np.stack([part.mean(axis=0) for part in np.split(values, ends[:-1])])
        count, mean = len(of_seed), of_seed.mean(axis=0)
        if count < 2:
            return mean, None
        from scipy.special import stdtrit

        quantile = float(stdtrit(count - 1, 0.975))
        return mean, quantile * of_seed.std(axis=0, ddof=1) / math.sqrt(count)

    def course(self, value: Callable[[Record], float | None], total: bool = False) -> Course | None:
        """A measure over the epochs that all its runs have noted it for; None if there are none.

        total: add the epochs up.
        """
        columns = []
        for run in self.runs:
            values = [value(record) for record in run.records]
            numbers = np.array([math.nan if v is None else v for v in values], np.float64)
            columns.append(np.cumsum(numbers) if total else numbers)
        shortest = min(map(len, columns))
        table = np.stack([column[:shortest] for column in columns])
        noted = np.isfinite(table).all(axis=0)
        if not noted.any():
            return None
        mean, half = self.interval(table[:, noted])
        epochs = np.array([record["epoch"] + 1 for record in self.runs[0].records])[:shortest]
        return Course(epochs[noted], mean, half)


def mean_of(summaries: Sequence[Summary]) -> Summary:
    """A summary whose numbers are the means of others'; counts are rounded."""
    first = summaries[0]
    if len(summaries) == 1:
        return first
    means: dict[str, Any] = {}
    for field in fields(Summary):
        values = [getattr(summary, field.name) for summary in summaries]
        if isinstance(values[0], float):
            means[field.name] = float(np.mean(values))
        elif isinstance(values[0], int):
            means[field.name] = round(float(np.mean(values)))
    parts = {part for summary in summaries for part in summary.seconds}
    means["seconds"] = {
        part: float(np.mean([s.seconds.get(part, 0.0) for s in summaries])) for part in parts
    }
    return replace(first, **means)


def read(run: Path) -> Run:
    """A run folder; `InputError` for one that is none, is damaged or has no finished epoch."""
    config, records = read_config(run), read_metrics(run)
    summary = sum_up(run, config, records)
    check(records, run / "metrics.jsonl")
    return Run(run, config, records, summary)


def find(given: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs that these paths name, and a sentence for each in a folder of runs that is none.

    A path is a run folder or a folder of them; from the latter, what others are compared with comes
    last. Raises `InputError` where a run that was named, or all of a folder, cannot be read.
    """
    runs: dict[Path, Run] = {}
    passed_over: list[str] = []
    for path in given:
        below = [] if _is_run(path) else _runs_below(path)
        if not below:
            runs.setdefault(path.resolve(), read(path))
            continue
        found = []
        for folder in below:
            try:
                found.append(read(folder))
            except InputError as error:
                passed_over.append(str(error).rstrip("."))
        if not found:
            raise InputError(f"{path} holds no run with a finished epoch: {passed_over[0]}")
        found.sort(key=lambda run: (_rank(run), run.folder.name))
        for run in found:
            runs.setdefault(run.folder.resolve(), run)
    return list(runs.values()), passed_over


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("config.yaml", "metrics.jsonl"))


def _runs_below(path: Path) -> list[Path]:
    try:
        return sorted(below for below in path.iterdir() if below.is_dir() and _is_run(below))
    except OSError:
        return []


def _rank(run: Run) -> int:
    policy = run.config["policy"]
    return _BASELINES.index(policy) + 1 if policy in _BASELINES else 0


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The runs by what they computed, in the order in which they were given."""
    # A run that is older than an option had its default.
    names = sorted({name for run in runs for name in run.config} - _REPEATED)
    settings = {run.folder: _settings(run, names) for run in runs}
    members: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(settings[run.folder], sort_keys=True, default=str)
        members.setdefault(key, []).append(run)
    for group in members.values():
        group.sort(key=_by_number)
    folders = [_folders(group) for group in members.values()]
    labels = labels_of([settings[group[0].folder] for group in members.values()], folders)
    return [
        Group(label, tuple(group)) for label, group in zip(labels, members.values(), strict=True)
    ]


def _settings(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """What decides what a run computes and how fast, flat: options of options by their path."""
    flat: dict[str, Any] = {"ranks": run.summary.ranks}
    for name in names:
        value = option_of(run.config, name)
        if isinstance(value, Mapping):
            flat |= {f"{name}.{option}": value[option] for option in value}
        else:
            flat[name] = value
    if (subject := flat.get(f"policy_options.{SUBJECT}")) is not None:
        flat[f"policy_options.{SUBJECT}"] = _beside(run.folder, str(subject))
    return flat


def _beside(run: Path, subject: str) -> str:
    """The policy of the run that another one hides as many samples as."""
    try:
        config = read_config(run.parent / Path(subject).name)
    except InputError:
        return subject
    options = config.get("policy_options") or {}
    return " ".join([str(config["policy"]), *(f"{name}={options[name]}" for name in options)])


def seed_of(run: Run) -> int | str:
    """Its seed, or as text whatever stands in a damaged configuration."""
    seed = run.config.get("seed")
    return seed if isinstance(seed, int) else str(seed)


def _by_number(run: Run) -> tuple[bool, int, str]:
    seed = seed_of(run)
    return isinstance(seed, str), 0 if isinstance(seed, str) else seed, str(seed)


def _folders(group: Sequence[Run]) -> str:
    name, more = group[0].folder.resolve().name, len(group) - 1
    return f"{name} and {more} more" if more else name


def subject(runs: Sequence[Run], groups: Sequence[Group], first: Path) -> Run:
    """The run that the page is about, of those that `first`, the first path given, names.

    A run itself, or of a folder of runs the first that has a `full` one beside it and is no
    baseline itself; else its first.
    """
    if not _is_run(first):
        for run in runs:
            mine = next(group for group in groups if run in group.runs)
            within = run.folder.parent.resolve() == first.resolve()
            if within and not _rank(run) and baseline(mine, groups, "full") is not None:
                return run
    return runs[0]


def baseline(group: Group, others: Sequence[Group], policy: str) -> Group | None:
    """The group of `policy` that did the same work on as many ranks, whatever its seeds.

    Only where all have trained as many epochs: what a run has yet to do is not what it saved.
    """
    mine = group.runs[0]
    for other in others:
        theirs = other.runs[0]
        if theirs.config["policy"] != policy or group.runs[0].config["policy"] == policy:
            continue
        same = all(
            option_of(theirs.config, name) == option_of(mine.config, name)
            for name in SAME_WORK
            if name != "seed"
        )
        lengths = {run.summary.epochs for run in (*group.runs, *other.runs)}
        if same and theirs.summary.ranks == mine.summary.ranks and len(lengths) == 1:
            return other
    return None
