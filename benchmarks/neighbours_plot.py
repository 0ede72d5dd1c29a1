"""The figure of `benchmarks.neighbours`: what each variant gains over its control, in points.

python -m benchmarks.neighbours_plot     from results/neighbours.csv to results/neighbours.png
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from benchmarks.accuracy_results import Interval

RESULTS = Path(__file__).parent / "results"
# Questions with a control: which variant it is, and the measures that say something.
CONTROLS = {
    "two classes of 12 samples": ("plain", ("recall, rare", "recall, others")),
    "shaped inputs": ("plain", ("accuracy under attack", "accuracy")),
    "friendly, a fifth of the labels wrong": ("plain", ("accuracy",)),
    "extrapolation, rate 0.1": ("0", ("accuracy",)),
    "extrapolation, rate 0.2": ("0", ("accuracy",)),
    "growing set": ("random, as many", ("accuracy",)),
    "growing set, a fifth of the labels wrong": ("random, as many", ("accuracy",)),
    "exchange, policy loss": ("float32", ("accuracy",)),
}


def main() -> None:
    values = read(RESULTS / "neighbours.csv")
    lines = [
        (f"{question}: {variant}, {measure}", gain(values, question, variant, control, measure))
        for question, (control, measures) in CONTROLS.items()
        for measure in measures
        for variant in dict.fromkeys(v for q, v, m in values if q == question and m == measure)
        if variant != control
    ]
    plot(lines, RESULTS / "neighbours.png")


def read(path: Path) -> dict[tuple[str, str, str], dict[int, float]]:
    """By question, variant and measure: the value of each seed."""
    found: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    with open(path, newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            key = row["question"], row["variant"], row["measure"]
            found[key][int(row["seed"])] = float(row["value"])
    return found


def gain(
    values: dict[tuple[str, str, str], dict[int, float]],
    question: str,
    variant: str,
    control: str,
    measure: str,
) -> Interval:
    """Over the control, in points, with its 95 % interval; paired by seed."""
    mine, theirs = values[question, variant, measure], values[question, control, measure]
    return Interval.of([100 * (mine[seed] - theirs[seed]) for seed in sorted(mine)])


def plot(lines: list[tuple[str, Interval]], path: Path) -> None:
    """A point and its interval a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.32 * len(lines) + 1), layout="constrained")
    axes = figure.subplots()
    places = range(len(lines), 0, -1)
    for place, (_, interval) in zip(places, lines, strict=True):
        told = abs(interval.mean) > interval.half
        colour = "C7" if not told else "C0" if interval.mean > 0 else "C3"
        axes.errorbar(interval.mean, place, xerr=interval.half, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(list(places), [label for label, _ in lines], fontsize=8)
    axes.set_xlabel("gain over the control, points; mean and 95 % interval of 5 seeds")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
