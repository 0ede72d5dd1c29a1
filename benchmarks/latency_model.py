"""Projects the cost of agreement to worlds nobody has at hand, and says how well it fits here.

A collective takes ``alpha * hops + beta * bytes``: alpha seconds a message, beta seconds a byte.
Hops are log2(P) for allreduce and allgather and P - 1 for the all-to-all; bytes are those of the
bandwidth-optimal algorithm. Work on a rank's own samples takes a time per sample, fitted at one
rank. It is a model: the curves are marked as such, and the measured points stand beside them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

Constants = dict[str, tuple[float, float]]  # collective -> (alpha in s, beta in s per byte)

BILLION, RANKS = 10**9, 16_384


def hops_and_bytes(what: str, size: float, ranks: int) -> tuple[float, float]:
    """For an argument of `size` bytes on each rank."""
    if what == "allreduce":
        return math.log2(ranks), 2 * size * (ranks - 1) / ranks
    if what == "allgather":
        return math.log2(ranks), size * (ranks - 1)
    return ranks - 1, size * (ranks - 1) / ranks


def fit(rows: list[dict[str, Any]]) -> Constants:
    """Least squares of the relative error, for each collective, over all sizes and worlds."""
    constants: Constants = {}
    for what in ("allreduce", "allgather", "alltoall"):
        points = [r for r in rows if r["what"] == what and r["ranks"] > 1]
        if len(points) < 2:
            continue
        terms = np.array([hops_and_bytes(what, p["bytes"], p["ranks"]) for p in points])
        seconds = np.array([p["p50_ms"] / 1e3 for p in points])
        solution = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(points)), rcond=None)[0]
        alpha, beta = np.maximum(solution, 0)
        constants[what] = (float(alpha), float(beta))
    return constants


def per_sample(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of own work a sample, from the largest set measured on one rank."""
    result = {}
    for what in ("agree", "exchange"):
        alone = [r for r in rows if r["what"] == what and r["ranks"] == 1]
        if alone:
            largest = max(alone, key=lambda row: row["samples"])
            result[what] = largest["p50_ms"] / 1e3 / largest["samples"]
    return result


def predict(
    what: str,
    samples: float,
    ranks: int,
    constants: Constants,
    work: dict[str, float],
    crowd: float,
) -> float:
    """Seconds of one `agree` or one `exchange`; `crowd` ranks share a core."""

    def cost(collective: str, size: float) -> float:
        if ranks == 1:
            return 0.0
        hops, moved = hops_and_bytes(collective, size, ranks)
        alpha, beta = constants[collective]
        return alpha * hops + beta * moved

    own = work[what] * samples / ranks * crowd
    if what == "agree":
        small = cost("allreduce", 64) * 2 + cost("allreduce", 16384) * 3
        return own + small + cost("allgather", samples / 8 / ranks)
    return own + cost("allreduce", 16) + cost("alltoall", 12 * samples / ranks)


def project(rows: list[dict[str, Any]], latency_us: float, bandwidth_gbs: float, out: Path) -> None:
    """Print the fit, its error at the measured points and the projection; plot beside `out`."""
    constants, work = fit(rows), per_sample(rows)
    if len(constants) < 3 or len(work) < 2:
        print("\nno projection: it needs worlds of one and of several ranks")
        return
    cores = len(os.sched_getaffinity(0))
    print("\nfitted here:")
    for what, (alpha, beta) in constants.items():
        print(f"  {what:<10} {1e6 * alpha:8.1f} us a hop {1e-9 / max(beta, 1e-15):8.2f} GB/s")
    for what, seconds in work.items():
        print(f"  {what:<10} {1e9 * seconds:8.1f} ns of own work a sample")
    print("measured against the model, ms:")
    points = [r for r in rows if r["what"] in work and r["samples"] and r["ranks"] > 1]
    for row in points:
        crowd = max(1.0, row["ranks"] / cores)
        model = predict(row["what"], row["samples"], row["ranks"], constants, work, crowd)
        print(
            f"  {row['what']:<10}{row['samples']:>12}{row['ranks']:>4} ranks"
            f"{row['p50_ms']:>10.2f}{1e3 * model:>10.2f}"
        )
    network = (latency_us * 1e-6, 1e-9 / bandwidth_gbs)
    cluster: Constants = dict.fromkeys(constants, network)
    print(f"projected, {BILLION:,} samples on {RANKS:,} ranks, one a core, seconds:")
    for label, chosen in (("messages as here", constants), ("given network", cluster)):
        parts = {w: predict(w, BILLION, RANKS, chosen, work, 1.0) for w in work}
        said = ", ".join(f"{what} {seconds:.3f}" for what, seconds in parts.items())
        print(f"  {label:<18} {said}")
    print(f"  (given network: {latency_us:g} us a message, {bandwidth_gbs:g} GB/s a rank)")
    _plot(rows, constants, cluster, work, cores, out.with_suffix(".png"))


def _plot(
    rows: list[dict[str, Any]],
    constants: Constants,
    cluster: Constants,
    work: dict[str, float],
    cores: int,
    target: Path,
) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: install the extra 'report' for matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    ranks = 2 ** np.arange(0, 15)
    for axis, what in zip(axes, work, strict=True):
        for samples in sorted({r["samples"] for r in rows if r["what"] == what}) + [BILLION]:
            near = samples != BILLION
            chosen = constants if near else cluster
            worlds = ranks[:4] if near else ranks
            curve = [
                predict(what, samples, int(p), chosen, work, max(1, p / cores) if near else 1.0)
                for p in worlds
            ]
            label = f"N = {samples:,}, model" + ("" if near else " (given network)")
            (line,) = axis.plot(worlds, curve, label=label, linestyle="-" if near else "--")
            seen = [r for r in rows if r["what"] == what and r["samples"] == samples]
            axis.plot(
                [r["ranks"] for r in seen],
                [r["p50_ms"] / 1e3 for r in seen],
                "o",
                color=line.get_color(),
            )
        axis.set(xscale="log", yscale="log", xlabel="ranks", title=f"{what} (dots: measured)")
        axis.legend(fontsize=7)
    axes[0].set_ylabel("seconds")
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
    print(f"plot: {target}")
