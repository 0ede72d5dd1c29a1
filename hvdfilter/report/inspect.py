"""What `hvdfilter inspect` and `score` show: quantiles of scores, and samples worth a look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hvdfilter.errors import InputError
from hvdfilter.inspection.samples import open_samples
from hvdfilter.inspection.summary import summarise
from hvdfilter.report.terminal import ascii_table, console, show_table

#: Most classes that are shown, the hardest ones.
CLASSES = 20
_LISTS = {
    "hardest": "hardest, by the last loss",
    "most_hidden": "most often hidden",
    "likely_mislabelled": "likely mislabelled, by the mean margin",
}
# Of each class.
_COUNTS = {"never_hidden": "never\nhidden", "margin_mean_below_0": "mean\nmargin\n< 0"}
_IDS = {"hardest": "hardest, ids", "likely_mislabelled": "likely mislabelled, ids"}
Said = Mapping[str, Any]


def describe(path: Path, top: int = 10) -> Said:
    """What is known of the samples of a run, a checkpoint or a score file.

    top: samples in each list, at most. Raises `InputError` where there is nothing to read.
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
        since = f" since epoch {said['noted_since'] + 1}" if said["noted_since"] else ""
        _line(screen, f"never hidden{since}: {said['never_hidden']:,} samples")
    for name, title in _LISTS.items():
        if name in said:
            _samples(screen, title, said[name])
    if "rule" in said and said["margin_mean_below_0"] is None:
        _line(screen, "no margins were noted: nothing is known of mislabelled samples")
    elif "rule" in said:
        _line(screen, f"{said['margin_mean_below_0']:,} samples below 0. {said['rule']}.")
    if said["classes"]:
        _classes(screen, said)
    else:
        _line(
            screen, "no labels were given to the filter: hf.Filter(..., labels=...) tells classes"
        )


def _quantiles(screen: Console, said: Said) -> None:
    table = ascii_table("quantile", *map(_head, said["quantiles"]))
    for name, cells in _levels(said, said["quantiles"]):
        table.add_row(name, *cells)
    show_table(screen, table)


def _samples(screen: Console, title: str, rows: Sequence[Said]) -> None:
    if not rows:
        _line(screen, f"{title}: none")
        return
    table = ascii_table(*map(_head, rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(_number, row.values()))
    show_table(screen, table)


def _classes(screen: Console, said: Said) -> None:
    """Each class with its extreme samples, and its quantiles; the highest median loss first."""
    classes = said["classes"]
    # Those of which nothing was observed last: a NaN has no place in an order.
    places = {one["class"]: _median(one, "loss") for one in classes}
    unseen = {name: math.isnan(median) for name, median in places.items()}
    hardest = sorted(classes, key=lambda one: (unseen[one["class"]], -places[one["class"]]))
    shown = hardest[:CLASSES]
    title = "classes, the highest median loss first"
    if len(shown) < len(classes):
        title += f": the first {len(shown)} of {len(classes)} (--json has all)"
    counted = {name: title for name, title in _COUNTS.items() if name in classes[0]}
    listed = {name: title for name, title in _IDS.items() if name in classes[0]}
    head = ("class", "samples", *counted.values(), *listed.values())
    table = ascii_table(*head, title=title, title_justify="left")
    for one in shown:
        ids = [" ".join(str(sample["id"]) for sample in one[name]) for name in listed]
        numbers = [_number(one[name]) for name in ("class", "samples", *counted)]
        table.add_row(*numbers, *ids)
    show_table(screen, table)
    title = "quantiles of these classes"
    head = ("class", "quantile", *map(_head, said["quantiles"]))
    table = ascii_table(*head, title=title, title_justify="left")
    for one in shown:
        for name, cells in _levels(said, one["quantiles"]):
            table.add_row(_number(one["class"]), name, *cells)
    show_table(screen, table)


def _levels(
    said: Said, quantiles: Mapping[str, Sequence[float] | None]
) -> Iterator[tuple[str, list[str]]]:
    """Each level's name and cells, a cell a score; a dash where nothing was observed."""
    names = {0.0: "least", 0.5: "median", 1.0: "most"}
    for at, level in enumerate(said["quantile_levels"]):
        columns = quantiles.values()
        cells = ["-" if values is None else _number(values[at]) for values in columns]
        yield names.get(level, f"{level:.0%}"), cells


def _head(name: str) -> str:
    """What stands over the column of this name, no wider than its cells."""
    return name.replace("_", "\n")


def _median(one: Said, name: str) -> float:
    values = one["quantiles"].get(name)
    return float("nan") if values is None else values[len(values) // 2]


def _number(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)
    # The fourth digit where it has room: 0.9996 is not 1.
    exact = f"{value:.4g}"
    return exact if len(exact) <= 7 else f"{value:.3g}"


def _line(screen: Console, text: str) -> None:
    screen.print(text, highlight=False, soft_wrap=True)
