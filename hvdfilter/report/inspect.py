"""What `hvdfilter inspect` and `score` show: quantiles of scores, and samples worth a look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hvdfilter.errors import InputError
from hvdfilter.inspection.samples import open_samples
from hvdfilter.inspection.summary import summarise
from hvdfilter.report.terminal import ascii_table, console

#: Most classes that get a line of their own, the hardest ones.
CLASSES = 20
_LISTS = {
    "hardest": "hardest, by the last loss",
    "most_hidden": "most often hidden",
    "likely_mislabelled": "likely mislabelled, by the mean margin",
}
Said = Mapping[str, Any]


def describe(path: Path, top: int = 10) -> Said:
    """What is known of the samples of a run, a checkpoint or a score file.

    top: samples in each list. Raises `InputError` where there is nothing to read.
    """
    if top < 1:
        raise InputError(f"top={top} must be at least 1 sample")
    return summarise(open_samples(path), top)


def inspect_tables(said: Said, short: bool = False) -> None:
    """Print what `describe` says. short: the quantiles over all samples alone."""
    screen = console()
    _line(screen, f"{said['source']}: {said['samples']:,} samples, {said['epochs']} epochs")
    _quantiles(screen, said)
    if short:
        return
    if "never_hidden" in said:
        _line(screen, f"never hidden: {said['never_hidden']:,} samples")
    for name, title in _LISTS.items():
        if name in said:
            _samples(screen, title, said[name])
    if "rule" in said:
        _line(screen, f"{said['margin_mean_below_0']:,} samples below 0. {said['rule']}.")
    if said["classes"]:
        _classes(screen, said["classes"])
    else:
        _line(
            screen, "no labels were given to the filter: hf.Filter(..., labels=...) tells classes"
        )


def _quantiles(screen: Console, said: Said) -> None:
    table = ascii_table("score")
    for level in said["quantile_levels"]:
        table.add_column({0.0: "least", 0.5: "median", 1.0: "most"}.get(level, f"{level:.0%}"))
    for name, values in said["quantiles"].items():
        table.add_row(name, *map(_number, values or ["-"] * len(said["quantile_levels"])))
    screen.print(table)


def _samples(screen: Console, title: str, rows: Sequence[Said]) -> None:
    if not rows:
        _line(screen, f"{title}: none")
        return
    table = ascii_table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(_number, row.values()))
    screen.print(table)


def _classes(screen: Console, classes: Sequence[Said]) -> None:
    """A line a class, with its most suspicious samples; those of the highest median loss first."""
    # Those of which nothing was observed last: a NaN has no place in an order.
    places = {one["class"]: _median(one, "loss") for one in classes}
    unseen = {name: math.isnan(median) for name, median in places.items()}
    hardest = sorted(classes, key=lambda one: (unseen[one["class"]], -places[one["class"]]))
    hardest = hardest[:CLASSES]
    title = f"classes, the {len(hardest)} hardest of {len(classes)} by their median loss"
    table = ascii_table("class", "samples", title=title, title_justify="left")
    scores = [
        name for name in ("loss", "confidence", "margin_mean") if name in classes[0]["quantiles"]
    ]
    for name in scores:
        table.add_column(f"median {name}")
    counted = [name for name in ("never_hidden", "margin_mean_below_0") if name in classes[0]]
    for name in counted:
        table.add_column({"never_hidden": "never hidden"}.get(name, "mean margin < 0"))
    suspects = "likely_mislabelled" in classes[0]
    if suspects:
        table.add_column("suspects, ids")
    for one in hardest:
        cells = [_number(one["class"]), _number(one["samples"])]
        cells += [_number(_median(one, name)) for name in scores]
        cells += [_number(one[name]) for name in counted]
        if suspects:
            cells.append(" ".join(str(sample["id"]) for sample in one["likely_mislabelled"]))
        table.add_row(*cells)
    screen.print(table)


def _median(one: Said, name: str) -> float:
    values = one["quantiles"].get(name)
    return float("nan") if values is None else values[len(values) // 2]


def _number(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(screen: Console, text: str) -> None:
    screen.print(text, highlight=False, markup=False, soft_wrap=True)
