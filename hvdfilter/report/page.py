"""One HTML page that tells a run, and what it is compared with, in figures and a table.

The page is a single file with its pictures inside, so it can be mailed or archived as it is.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from hvdfilter import files
from hvdfilter.report.compare import ROWS, find_full, summarise
from hvdfilter.report.figure import blank
from hvdfilter.training.run_folder import read_metrics

Curve = Callable[[dict[str, Any]], float | None]
FIGURES: list[tuple[str, str, Curve]] = [
    ("Test accuracy", "accuracy", lambda record: record.get("test_accuracy")),
    ("Hidden samples", "share of the set", lambda record: record["hidden"] / record["samples"]),
    ("Training loss", "mean loss of trained samples", lambda record: record.get("train_loss")),
    ("Time of an epoch", "seconds", lambda record: record["seconds"]["total"]),
]


def write_page(runs: Sequence[Path]) -> Path:
    """Write `report.html` into the first run folder; returns its path.

    The first run is the subject; without others it is set beside its `full` run, if there is one.
    Raises `InputError` for a folder without metrics or when matplotlib is missing.
    """
    summaries = [summarise(run) for run in runs]
    if len(runs) == 1:
        full = find_full(runs[0])
        summaries += [full] if full else []
    template = Environment(
        loader=PackageLoader("hvdfilter.report", "templates"), autoescape=True, trim_blocks=True
    ).get_template("page.html")
    page = template.render(
        summaries=summaries,
        rows=ROWS,
        figures=[
            (title, _figure([s.folder for s in summaries], title, unit, curve))
            for title, unit, curve in FIGURES
        ],
        last=read_metrics(runs[0])[-1],
    )
    path = runs[0] / "report.html"
    files.write(path, page)
    return path


def _figure(runs: Sequence[Path], title: str, unit: str, curve: Curve) -> str:
    """A line for each run over the epochs, as a PNG in base64."""
    figure = blank(5.2, 3.1)
    axes = figure.subplots()
    for run in runs:
        records = read_metrics(run)
        points = [(r["epoch"] + 1, y) for r in records if (y := curve(r)) is not None]
        if points:  # a script records the measures it has
            axes.plot(*zip(*points, strict=True), label=run.name)
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return base64.b64encode(png.getvalue()).decode()
