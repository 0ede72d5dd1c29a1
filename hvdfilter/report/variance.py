"""How much the gradient varied during training: a table on the terminal, and a plot of all runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdfilter import files
from hvdfilter.errors import InputError
from hvdfilter.report.figure import blank
from hvdfilter.report.terminal import ascii_table, console, show_table
from hvdfilter.training.run_folder import read_config, read_metrics

FILE = "variance.png"
KINDS = ("uniform", "policy")


@dataclass(frozen=True)
class Course:
    """What one run measured. measured: by epoch, for each of `KINDS` the measures by name."""

    run: Path
    policy: str
    measured: dict[int, dict[str, dict[str, float]]]


def variance_of(runs: Sequence[Path]) -> list[Course]:
    """What the runs measured; `InputError` for one that did not."""
    courses = []
    for run in runs:
        policy = str(read_config(run)["policy"])
        epochs = {r["epoch"]: r["variance"] for r in read_metrics(run) if "variance" in r}
        if not epochs:
            raise InputError(f"{run} measured no variance: train with --variance 20")
        courses.append(Course(run, policy, epochs))
    return courses


def variance_tables(courses: Sequence[Course]) -> None:
    """One table a run: both kinds of batch, and what the policy's vary against uniform ones."""
    for course in courses:
        batches = max(kind["batches"] for kind in next(iter(course.measured.values())).values())
        shown = ascii_table(
            "epoch",
            title=f"{course.run.name}: mini-batch gradient, over {batches} batches",
            title_justify="left",
        )
        for label in ("variance, uniform", f"variance, {course.policy}", "ratio"):
            shown.add_column(label, justify="right")
        for label in ("normalised, uniform", f"normalised, {course.policy}"):
            shown.add_column(label, justify="right")
        for epoch, kinds in course.measured.items():
            uniform, policy = (kinds[kind] for kind in KINDS)
            ratio = policy["variance"] / uniform["variance"] if uniform["variance"] else math.nan
            shown.add_row(
                str(epoch + 1),
                f"{uniform['variance']:.3g}",
                f"{policy['variance']:.3g}",
                f"{ratio:.2f}",
                f"{uniform['normalised']:.3f}",
                f"{policy['normalised']:.3f}",
            )
        show_table(console(), shown)


def variance_document(courses: Sequence[Course], picture: Path) -> dict[str, Any]:
    """The same, for a program. picture: where it is drawn."""
    runs = [
        {
            "run": course.run,
            "policy": course.policy,
            "epochs": [{"epoch": epoch, **kinds} for epoch, kinds in course.measured.items()],
        }
        for course in courses
    ]
    return {"runs": runs, "picture": picture}


def draw(courses: Sequence[Course], path: Path) -> None:
    """Variance and normalised variance by epoch, dashed for uniform batches; written to `path`."""
    figure = blank(9, 3.6)
    plots: Any = figure.subplots(1, 2)
    for plot, name in zip(plots, ("variance", "normalised"), strict=True):
        for number, course in enumerate(courses):
            epochs = [epoch + 1 for epoch in course.measured]
            for kind, style in zip(KINDS, ("--", "-"), strict=True):
                values = [kinds[kind][name] for kinds in course.measured.values()]
                whose = course.policy if kind == "policy" else kind
                label = f"{course.run.name}: {whose} batches"
                plot.plot(epochs, values, style, color=f"C{number}", label=label)
        plot.set_xlabel("epoch")
        plot.grid(alpha=0.3)
    plots[0].set_yscale("log")
    plots[0].set_ylabel("variance V[g], mean of coordinates")
    plots[1].set_ylabel("normalised variance, V[g] / E[g²]")
    plots[1].set_ylim(0, 1.05)
    plots[1].legend(fontsize="small")
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
