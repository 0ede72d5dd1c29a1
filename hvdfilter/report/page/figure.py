"""Figures as Vega-Lite specifications over small tables: lines by epoch, and heat maps.

A figure is a specification without width or colours of its own (`theme`), the rows it draws, and a
text alternative. Nothing is drawn here: a browser does that, or `export`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvdfilter.report.page import theme

POINTS = 300  # of a line: more than a screen has columns for
COLUMNS = 80  # of a heat map
ROWS = 20  # of a table beside a figure, for each of its lines

Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One drawing. alt: what it shows, in words; data: the table that it draws, by its name."""

    name: str
    title: str
    alt: str
    spec: dict[str, Any]
    data: str


@dataclass(frozen=True)
class Panel:
    """Figures that belong together, and one table with the values they show.

    legend: of the lines, by their order; a heat map brings its own.
    """

    title: str
    text: str
    figures: tuple[Figure, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: dict[str, list[Row]]
    legend: tuple[str, ...] = field(default=())


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spread, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def number(value: float | None, digits: int = 6) -> float | None:
    """A value as JSON and a figure can hold it: rounded, and nothing where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


#: An axis of whole numbers. d3 divides a span of one in two, whatever step it is given.
WHOLE = {"tickMinStep": 1, "format": ",d", "labelExpr": "datum.value % 1 ? '' : datum.label"}


def lines(
    name: str,
    title: str,
    alt: str,
    *,
    data: str,
    x: str,
    x_title: str,
    y: str,
    shown: str,
    labels: list[str],
    low_high: tuple[str, str] | None = None,
    zero: bool = False,
    domain: tuple[float, float] | None = None,
) -> Figure:
    """A line for each value of the column `run`, with a band where `low_high` names its columns.

    shown: format of y, as d3 writes it. zero: whether the axis begins there. domain: of
    y, where lines may leave it.
    """
    axis = {} if x == "seconds" else WHOLE
    across = {"field": x, "type": "quantitative", "title": x_title, "axis": axis}
    up = {
        "field": y,
        "type": "quantitative",
        "title": None,
        "scale": {"zero": zero} if domain is None else {"domain": list(domain), "nice": False},
        "axis": {"format": shown},
    }
    told = [
        {"field": "run", "type": "nominal"},
        {"field": x, "type": "quantitative", "title": x_title, "format": ",.6~g"},
        {"field": y, "type": "quantitative", "title": title, "format": shown},
    ]
    looks = theme.scales(labels)
    layers: list[dict[str, Any]] = []
    if low_high is not None:
        low, high = low_high
        told += [
            {"field": field, "type": "quantitative", "title": end, "format": shown}
            for field, end in ((low, "95 % from"), (high, "95 % to"))
        ]
        layers.append(
            {
                "mark": {"type": "area", "opacity": 0.13, "line": False, "clip": True},
                "encoding": {
                    "y": {**up, "field": low},
                    "y2": {"field": high},
                    "color": looks["color"],
                },
            }
        )
    near = {
        "name": "near",
        "select": {
            "type": "point",
            "on": "pointermove",
            "nearest": True,
            "clear": "pointerout",
            "fields": [x, "run"],
        },
    }
    layers += [
        {"mark": {"type": "line", "strokeWidth": 2, "clip": True}, "encoding": {"y": up, **looks}},
        {
            "mark": {"type": "point", "filled": True, "size": 60, "clip": True},
            "params": [near],
            "encoding": {
                "y": up,
                "color": looks["color"],
                "tooltip": told,
                "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
            },
        },
    ]
    return Figure(name, title, alt, _spec(data, 220, encoding={"x": across}, layer=layers), data)


def cells(
    name: str,
    title: str,
    alt: str,
    *,
    data: str,
    y: dict[str, Any],
    y2: str | None,
    colour: str,
    colour_title: str,
    shown: str,
    told: Sequence[tuple[str, str, str]],
    height: int = 220,
    top: float | None = None,
    rooted: bool = False,
    line: str | None = None,
    line_data: str = "",
) -> Figure:
    """A heat map over epochs: a cell from `epoch` to `until`, at y (to y2), by its value.

    told: (column, title, format) of the pop-up; top: of the colour's scale; rooted: colour grows
    with the value's square root, so that the few show beside the many; line: a column of the
    table `line_data` drawn over it.
    """
    across = {
        "field": "epoch",
        "type": "quantitative",
        "title": "epoch",
        "axis": WHOLE | {"grid": False},
        "scale": {"zero": False, "nice": False},
    }
    scale: dict[str, Any] = {"scheme": theme.SEQUENTIAL}
    if rooted:
        scale["type"] = "sqrt"
    if top is not None:
        scale["domain"] = [0, top]
    encoding = {
        "x2": {"field": "until"},
        "y": y,
        "color": {
            "field": colour,
            "type": "quantitative",
            "title": colour_title,
            "scale": scale,
            "legend": {"format": shown, "direction": "horizontal", "orient": "top"},
        },
        "tooltip": [
            {"field": field, "type": "quantitative" if form else "nominal", "title": said}
            | ({"format": form} if form else {})
            for field, said, form in told
        ],
    }
    if y2 is not None:
        encoding["y2"] = {"field": y2}
    layer: list[dict[str, Any]] = [{"mark": {"type": "rect", "stroke": None}, "encoding": encoding}]
    if line is not None:
        # Light within dark, so that it shows on any cell.
        layer += [
            {
                "data": {"name": line_data},
                "mark": {"type": "line", "interpolate": "step-after", "color": c, "strokeWidth": w},
                "encoding": {"y": {**y, "field": line}},
            }
            for c, w in (("#000000", 4), ("#ffffff", 2))
        ]
    return Figure(name, title, alt, _spec(data, height, encoding={"x": across}, layer=layer), data)


def _spec(data: str, height: int, **rest: Any) -> dict[str, Any]:
    return {"data": {"name": data}, "height": height, **rest}


def stretches(records: Sequence[dict[str, Any]]) -> list[tuple[int, Row]]:
    """Which records are drawn as cells, each from its epoch, counted from 1, until the next."""
    picked = thin(len(records), COLUMNS)
    starts = [records[at]["epoch"] + 1 for at in picked]
    ends = [*starts[1:], records[-1]["epoch"] + 2]
    return [
        (at, {"epoch": start, "until": end})
        for at, start, end in zip(picked, starts, ends, strict=True)
    ]
