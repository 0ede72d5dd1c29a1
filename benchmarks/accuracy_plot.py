"""The plot of `benchmarks.accuracy`: accuracy against optimiser steps, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy_results import Interval, Line

MARKERS = "osD^v<>PX*"
# Policies of the same steps stand side by side, this far apart, in % of the axis.
APART = 0.9


def plot(path: Path, table: Sequence[Line], title: str) -> None:
    """One point a policy and fraction, over the two controls at every number of steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whole = max(line.steps for line in table)
    share = {id(line): 100 * line.steps / whole for line in table}
    figure, axes = pyplot.subplots(figsize=(11, 6), layout="constrained")
    for name, style, of in (
        ("full, shortened", "-", lambda line: line.full_steps),
        ("random, as many steps", "--", lambda line: line.random_steps),
    ):
        points = sorted({round(share[id(line)], 1): of(line) for line in table}.items())
        _band(axes, points, name, style)
    policies = sorted({line.policy for line in table} - {"full", "random"})
    colours = pyplot.get_cmap("tab20").colors
    place = _side_by_side([line for line in table if line.policy in policies], share)
    for number, policy in enumerate(policies):
        mine = [line for line in table if line.policy == policy]
        axes.errorbar(
            [place[id(line)] for line in mine],
            [100 * line.accuracy.mean for line in mine],
            [_half(line.accuracy) for line in mine],
            fmt=MARKERS[number % len(MARKERS)],
            color=colours[number % len(colours)],
            capsize=2,
            markersize=5,
            label=policy,
        )
    # By the means: an interval of few seeds can be wider than all that is to be seen.
    means = [100 * of.mean for line in table for of in (line.accuracy, line.random_steps)]
    room = 0.25 * (max(means) - min(means)) + 0.5
    axes.set_ylim(min(means) - room, min(100.0, max(means) + room))
    axes.set_xlabel(f"optimiser steps, % of the {whole:.0f} of the full run")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _band(axes, points: Sequence[tuple[float, Interval]], name: str, style: str) -> None:
    x = [steps for steps, _ in points]
    y = [100 * interval.mean for _, interval in points]
    half = [_half(interval) for _, interval in points]
    axes.plot(x, y, style, color="black", linewidth=1.2, label=name)
    low = [middle - h for middle, h in zip(y, half, strict=True)]
    high = [middle + h for middle, h in zip(y, half, strict=True)]
    axes.fill_between(x, low, high, color="black", alpha=0.08, linewidth=0)


def _half(interval: Interval) -> float:
    return 100 * interval.half if interval.n > 1 else 0.0


def _side_by_side(table: Sequence[Line], share: dict[int, float]) -> dict[int, float]:
    """Where each line stands: its share of the steps, moved aside where others have the same."""
    columns: dict[int, list[Line]] = {}
    for line in table:
        columns.setdefault(round(share[id(line)]), []).append(line)
    return {
        id(line): share[id(line)] + APART * (number - (len(column) - 1) / 2)
        for column in columns.values()
        for number, line in enumerate(column)
    }
