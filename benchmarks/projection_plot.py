"""The picture of `benchmarks.projection`: how well the model predicts, and what it projects."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def plot(
    points: list[dict[str, Any]],
    predicted: Callable[[dict[str, Any]], float],
    found: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """points: that were left out of the fit. found: of `projection.curves`."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: install the extra 'report' for matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (judged, parts, epochs) = pyplot.subplots(1, 3, figsize=(14, 4.4))
    for kind, mark in zip(sorted({row["what"] for row in points}), "os^vDPX", strict=False):
        rows = [row for row in points if row["what"] == kind]
        measured = [row["p50_ms"] for row in rows]
        judged.plot(measured, [1e3 * predicted(row) for row in rows], mark, label=kind, alpha=0.7)
    ends = [min(row["p50_ms"] for row in points) / 1.5, max(row["p50_ms"] for row in points) * 1.5]
    judged.plot(ends, ends, color="grey", linewidth=1)
    judged.fill_between(
        ends, [e / 1.25 for e in ends], [e * 1.25 for e in ends], color="grey", alpha=0.15
    )
    judged.set(
        **{"xscale": "log", "yscale": "log", "xlabel": "measured, ms", "ylabel": "model, ms"},
        title="points left out of the fit (band: 25 %)",
    )
    judged.legend(fontsize=8)
    ranks = found["ranks"]
    for name in ("ring", "hierarchical"):
        parts.plot(ranks[1:], found[name][1:], label=f"{name} allreduce, a step")
    for name in ("agreement", "exchange"):
        parts.plot(ranks, found[name], "--", label=f"{name}, an epoch")
    parts.set(xscale="log", yscale="log", xlabel="ranks", ylabel="seconds", title="projected")
    parts.legend(fontsize=8)
    epochs.plot(ranks, found["full"], label="full")
    epochs.plot(ranks, found["hidden"], label=f"{options.hide:.0%} hidden")
    epochs.set(xscale="log", yscale="log", xlabel="ranks", ylabel="seconds an epoch")
    epochs.set_title("projected: nothing overlaps")
    epochs.legend(fontsize=8)
    figure.tight_layout()
    target = options.out.with_suffix(".png")
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
    print(f"plot: {target}")
