"""What the page says first: the verdict in words, and one row for each group of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvdfilter.report.page.groups import Group, Run, baseline
from hvdfilter.report.verdict import certainty, verdict

HEAD = (
    *("runs", "of them", "test accuracy", "hidden", "optimiser steps", "seconds", "against full"),
    *("CPU seconds", "gradient, MB a rank"),
)


def sentences(groups: Sequence[Group], subject: Run) -> list[str]:
    """The verdict on the subject's group, means over its seeds."""
    mine = next(group for group in groups if subject in group.runs)
    summary = mine.summary
    full, random = (baseline(mine, groups, policy) for policy in ("full", "random"))
    if full is None:
        found = [
            f"`{summary.policy}` hid {summary.hidden:.1%} of the samples in {summary.epochs} "
            f"epochs of {summary.total / summary.epochs:.2f} s; test accuracy is "
            f"{_accuracy(mine)}."
        ]
        if summary.policy != "full":
            found.append(
                f"There is no `full` run of the same work and as many epochs to compare with: "
                f"{_trains_full(mine.runs[0])}."
            )
        return found
    found = verdict(summary, full.summary, random.summary if random is not None else None)
    sure = [certainty(_by_seed(mine), _by_seed(full), "full")]
    if random is not None:
        sure.append(certainty(_by_seed(mine), _by_seed(random), "random"))
    return found + [sentence for sentence in sure if sentence]


def _trains_full(run: Run) -> str:
    if "runs" not in run.config:  # a script recorded it
        return "run the script again with `policy='full'` and another folder beside this one"
    return "`hvdfilter compare` trains one beside it"


def headline(groups: Sequence[Group]) -> dict[str, list[tuple[str, ...]]]:
    """The table of comparison: its head and rows, as text."""
    rows: list[tuple[str, ...]] = []
    for group in groups:
        mean, full = group.summary, baseline(group, groups, "full")
        against = "" if full is None else f"{mean.total / full.summary.total - 1:+.1%}"
        rows.append(
            (
                group.label,
                f"{len(group.runs)}",
                _accuracy(group),
                f"{mean.hidden:.1%}",
                f"{mean.steps:,d}",
                f"{mean.total:,.1f}",
                against,
                "" if math.isnan(mean.cpu) else f"{mean.cpu:,.1f}",
                f"{mean.gradient_bytes / 1e6:,.1f}",
            )
        )
    # No column of nothing where there is nothing to set a run beside.
    shown = [at for at, _ in enumerate(HEAD) if any(row[at] for row in rows)]
    return {"head": [_of(HEAD, shown)], "rows": [_of(row, shown) for row in rows]}


def _of(row: tuple[str, ...], columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(row[at] for at in columns)


def _accuracy(group: Group) -> str:
    values = np.array([run.summary.accuracy for run in group.runs])
    if not np.isfinite(values).all():
        return "not measured"
    mean, half = group.interval(values)
    return f"{mean:.2%}" if half is None else f"{mean:.2%} ± {half:.2%}"


def _by_seed(group: Group) -> dict[int, float]:
    return {
        seed: float(np.mean([run.summary.accuracy for run in runs]))
        for seed, runs in group.by_seed.items()
        if isinstance(seed, int)
    }
