"""Which optimiser maximises which margin: each one's margin in every norm over training.

    python -m benchmarks.robust_margins            three data sets: CSV, table and plot

Each data set is Gaussian with coin-flip labels and more features than samples. A margin is shown
over the largest that any linear classifier has in its norm, found by mathematical programming
(`hvdfilter.robust.largest_margin`), so 1 is optimal.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe
from hvdfilter.robust import fit_convolution, fit_linear, largest_margin
from hvdfilter.robust.norms import ATTACKS, FOURIER, weight_size

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("optimiser", "seed", "step", "norm", "share_of_optimum")
# The attack for which each optimiser is the right one.
OPTIMISERS = {
    "gradient descent": "l2",
    "coordinate descent": "linf",
    "sign descent": "l1",
    "convolutional net": FOURIER,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=RESULTS / "robust-margins.csv")
    options = parser.parse_args()
    rows = [row for seed in range(options.seeds) for row in measure(seed, options)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print_table(rows)
    plot(rows, options.out.with_suffix(".png"))


def measure(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The margins of every optimiser on the data of one seed, at every look."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((options.samples, options.features)))
    labels = torch.from_numpy(rng.integers(0, 2, options.samples))
    signed = x * (2 * labels - 1)[:, None]
    best = {norm: largest_margin(x, labels, norm) for norm in ATTACKS}
    rows: list[dict[str, Any]] = []
    for optimiser, attack in OPTIMISERS.items():

        def watch(step: int, weights: torch.Tensor, optimiser: str = optimiser) -> None:
            for norm in ATTACKS:
                margin = float((signed @ weights).min() / weight_size(weights[None], norm))
                share = round(margin / best[norm], 5)
                rows.append(dict(zip(COLUMNS, (optimiser, seed, step, norm, share), strict=True)))

        # No tolerance: all of them take all steps.
        if attack == FOURIER:
            fit_convolution(x, labels, options.steps, tolerance=0, seed=seed, watch=watch)
        else:
            fit_linear(x, labels, attack, options.steps, tolerance=0, watch=watch)
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean share of the optimum at the end: a row an optimiser, a column a norm."""
    means, last = _means(rows), max(row["step"] for row in rows)
    print(f"{'':20}" + "".join(f"{norm:>14}" for norm in ATTACKS))
    for optimiser in OPTIMISERS:
        shares = [means[optimiser, norm, last] for norm in ATTACKS]
        print(f"{optimiser:20}" + "".join(f"{share:14.3f}" for share in shares))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel a norm, a line an optimiser, the mean over the data sets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    means, steps = _means(rows), sorted({row["step"] for row in rows})
    figure, panels = pyplot.subplots(1, 4, figsize=(14, 3.8), sharey=True, layout="constrained")
    for axes, norm in zip(panels, ATTACKS, strict=True):
        for optimiser, attack in OPTIMISERS.items():
            shares = [means[optimiser, norm, step] for step in steps]
            wide = 2.2 if attack == norm else 1.1
            axes.plot(steps, shares, linewidth=wide, label=optimiser)
        axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("step")
        axes.set_title(f"margin against {norm}", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of the largest margin")
    panels[-1].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _means(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], float]:
    """Over the data sets: (optimiser, norm, step) -> share of the optimum."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        key = row["optimiser"], row["norm"], row["step"]
        found.setdefault(key, []).append(row["share_of_optimum"])
    return {key: sum(shares) / len(shares) for key, shares in found.items()}


if __name__ == "__main__":
    main()
