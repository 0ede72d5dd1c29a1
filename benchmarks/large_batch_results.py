"""What the runs of `benchmarks.large_batch` say together: table, CSV and plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy_results import Interval, Row

FULL, FILTERED, RANDOM = "full", "feature-filter", "random"
ARMS = (FULL, FILTERED, RANDOM)


@dataclass(frozen=True)
class Ratio:
    """A geometric mean and its 95 % interval, by Student's t over the logarithms."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Ratio:
        """Of at least one positive value; low and high are nan for one."""
        logs = Interval.of([math.log(value) for value in values])
        ends = (math.exp(logs.mean + side * logs.half) for side in (-1, 1))
        return Ratio(math.exp(logs.mean), *ends)

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class Against:
    """One choice of samples beside another of the same batch, seed by seed.

    gain: of accuracy; sharper: the ratio of the eigenvalues.
    """

    gain: Interval
    sharper: Ratio


@dataclass(frozen=True)
class Line:
    """One batch and choice of samples, over its seeds.

    eigenvalue: geometric mean; loss: of all training samples; against: by the other's name.
    """

    batch: int
    arm: str
    seeds: int
    steps: float
    accuracy: Interval
    eigenvalue: Ratio
    loss: Interval
    against: dict[str, Against]


def lines(rows: Sequence[Row], base: int) -> list[Line]:
    """One line a batch and choice, of the seeds for which all choices are there."""
    found = {(row["times"], row["arm"], row["seed"]): row for row in rows}
    made = []
    for times in sorted({row["times"] for row in rows}):
        seeds = sorted({row["seed"] for row in rows})
        whole = [s for s in seeds if all((times, arm, s) in found for arm in ARMS)]
        if not whole:
            continue
        runs = {arm: [found[times, arm, seed] for seed in whole] for arm in ARMS}
        made += [_line(times * base, arm, runs) for arm in ARMS]
    return made


def _line(batch: int, arm: str, runs: dict[str, list[Row]]) -> Line:
    own = runs[arm]

    def interval(name: str) -> Interval:
        return Interval.of([row[name] for row in own])

    def beside(other: str) -> Against:
        pairs = list(zip(own, runs[other], strict=True))
        return Against(
            Interval.of([mine["accuracy"] - theirs["accuracy"] for mine, theirs in pairs]),
            Ratio.of([mine["eigenvalue"] / theirs["eigenvalue"] for mine, theirs in pairs]),
        )

    return Line(
        batch=batch,
        arm=arm,
        seeds=len(own),
        steps=interval("steps").mean,
        accuracy=interval("accuracy"),
        eigenvalue=Ratio.of([row["eigenvalue"] for row in own]),
        loss=interval("loss"),
        against={other: beside(other) for other in (FULL, RANDOM) if other != arm},
    )


def markdown(table: Sequence[Line]) -> str:
    """The table for a person: accuracies in %."""
    head = ("batch", "samples", "seeds", "steps", "accuracy", "largest eigenvalue", "training loss")
    for other in (FULL, RANDOM):
        head += (f"accuracy minus {other}, paired", f"eigenvalue over {other}, paired")
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in table:
        loss = f"{line.loss.mean:.4f} ± {line.loss.half:.4f}" if line.seeds > 1 else ""
        cells = [str(line.batch), line.arm, str(line.seeds), f"{line.steps:.0f}"]
        cells += [str(line.accuracy), str(line.eigenvalue), loss or f"{line.loss.mean:.4f}"]
        for other in (FULL, RANDOM):
            found = line.against.get(other)
            cells += ["", ""] if found is None else [str(found.gain), str(found.sharper)]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def write_csv(path: Path, table: Sequence[Line], heading: str) -> None:
    """Every figure of the table, one row a batch and choice."""
    columns = ["batch", "samples", "seeds", "steps", "accuracy", "accuracy_ci95"]
    columns += ["eigenvalue", "eigenvalue_low", "eigenvalue_high", "loss", "loss_ci95"]
    for other in (FULL, RANDOM):
        columns += [f"gain_over_{other}", f"gain_over_{other}_ci95"]
        columns += [f"sharper_than_{other}{end}" for end in ("", "_low", "_high")]
    with open(path, "w", newline="") as file:
        file.write(f"# {heading}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for line in table:
            numbers = [line.accuracy.mean, line.accuracy.half]
            numbers += [line.eigenvalue.mean, line.eigenvalue.low, line.eigenvalue.high]
            numbers += [line.loss.mean, line.loss.half]
            cells = [line.batch, line.arm, line.seeds, f"{line.steps:.1f}"]
            cells += [f"{number:.6g}" for number in numbers]
            for other in (FULL, RANDOM):
                if (found := line.against.get(other)) is None:
                    cells += [""] * 5
                    continue
                numbers = [found.gain.mean, found.gain.half]
                numbers += [found.sharper.mean, found.sharper.low, found.sharper.high]
                cells += [f"{number:.6g}" for number in numbers]
            writer.writerow(cells)


def plot(path: Path, table: Sequence[Line], title: str) -> None:
    """Accuracy and largest eigenvalue against the global batch, a line a choice of samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, arm in enumerate(ARMS):
        mine = [line for line in table if line.arm == arm]
        # Side by side, or the intervals would cover each other.
        x = [line.batch * 1.06 ** (number - 1) for line in mine]
        style = {"marker": "osD"[number], "markersize": 5, "capsize": 3, "linewidth": 1.3}
        half = [0.0 if math.isnan(h) else 100 * h for h in (line.accuracy.half for line in mine)]
        means = [100 * line.accuracy.mean for line in mine]
        left.errorbar(x, means, half, label=arm, **style)
        value = [line.eigenvalue for line in mine]
        away = [
            [0.0 if math.isnan(v.low) else v.mean - v.low for v in value],
            [0.0 if math.isnan(v.low) else v.high - v.mean for v in value],
        ]
        right.errorbar(x, [v.mean for v in value], away, label=arm, **style)
    # An interval may go where no accuracy can be.
    low, high = left.get_ylim()
    left.set_ylim(max(0, low), min(100.5, high))
    right.set_ylim(bottom=0)
    left.set_ylabel("test accuracy, %")
    right.set_ylabel("largest Hessian eigenvalue")
    sizes = sorted({line.batch for line in table})
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("global batch after the opening epochs")
        axes.grid(alpha=0.3)
    left.legend(fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
