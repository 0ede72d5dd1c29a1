"""The heat maps of the masks: what was hidden of each class, and when samples were trained last.

Of one run, the subject; each is left out where the run has not noted what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvdfilter.filter.overview import CLASSES as COUNTED
from hvdfilter.report.page.figure import (
    ROWS,
    WHOLE,
    Figure,
    Panel,
    Row,
    cells,
    number,
    stretches,
    thin,
)
from hvdfilter.report.page.groups import Run

CLASSES = 50  # rows of a heat map that can still be told apart


def uncounted(run: Run) -> list[str]:
    """A sentence where a set has too many classes for figures by class."""
    most = max((record.get("classes_uncounted") or 0 for record in run.records), default=0)
    if not most:
        return []
    return [
        f"figures by class, for labels go up to {most - 1:,} and no more than {COUNTED:,} classes "
        "are counted one by one"
    ]


def by_class(run: Run, names: Sequence[str]) -> Panel | None:
    """The share of each class that was hidden. names: of the classes, where they are known."""
    records = [record for record in run.records if record.get("classes")]
    if not records:
        return None
    samples = np.array([record["classes"]["samples"] for record in records], np.float64)
    kept = np.array([record["classes"]["kept"] for record in records], np.float64)
    share = np.where(samples > 0, 1 - kept / np.maximum(samples, 1), 0)
    said = [names[c] if c < len(names) else str(c) for c in range(share.shape[1])]
    # Two classes of one name are two, as ImageNet's two cranes.
    said = [f"{name} ({c})" if said.count(name) > 1 else name for c, name in enumerate(said)]
    mean = share.mean(axis=0)
    order = np.argsort(-mean, kind="stable")
    drawn, text = order, "Classes that were hidden most stand on top."
    if len(order) > CLASSES:
        drawn = np.concatenate([order[: CLASSES // 2], order[-CLASSES // 2 :]])
        text = (
            f"Of {len(order)} classes the {CLASSES // 2} that were hidden most and the "
            f"{CLASSES // 2} that were hidden least; the table has all."
        )
    rows = [
        cell | {"class": f"{said[c]}", "share": number(share[at, c], 4), "kept": int(kept[at, c])}
        for at, cell in stretches(records)
        for c in drawn.tolist()
    ]
    top, bottom = order[0], order[-1]
    figure = cells(
        "classes",
        "Hidden by class",
        f"Share of each class that was hidden, by epoch: on average most of {said[top]} "
        f"({mean[top]:.1%}) and least of {said[bottom]} ({mean[bottom]:.1%}).",
        data="classes",
        y={
            "field": "class",
            "type": "nominal",
            "title": None,
            "sort": [said[c] for c in drawn.tolist()],
            "axis": {"labelLimit": 110, "labelOverlap": False},  # a row has room for its name
        },
        y2=None,
        colour="share",
        colour_title="share hidden",
        shown=".0%",
        told=(
            ("epoch", "epoch", ",d"),
            ("class", "class", ""),
            ("share", "share hidden", ".1%"),
            ("kept", "kept", ",d"),
        ),
        height=max(80, 16 * len(drawn)),
        top=max(float(share.max()), 0.01),
    )
    table = tuple(
        (said[c], f"{samples[-1, c]:,.0f}", f"{mean[c]:.1%}", f"{share[-1, c]:.1%}")
        for c in order.tolist()
    )
    head = ("class", "samples", "hidden, mean of epochs", "hidden, last epoch")
    return Panel("Hidden by class", text, (figure,), head, table, {"classes": rows})


def since_seen(run: Run) -> Panel | None:
    """How long ago samples were trained last, a stack of shares by epoch."""
    records = [r for r in run.records if (r.get("mask") or {}).get("since_seen")]
    if not records:
        return None
    counts = np.array([record["mask"]["since_seen"] for record in records], np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    last = shares.shape[1] - 1
    said = ["in this epoch", "1 epoch ago", *(f"{ago} epochs ago" for ago in range(2, last))]
    said = [*said[:last], f"{last}+ or never"]
    rows: list[Row] = []
    for at, cell in stretches(records):
        tops = np.cumsum(shares[at])
        rows += [
            cell
            | {"ago": said[k], "share": number(shares[at, k], 4)}
            | {"from": number(tops[k] - shares[at, k], 4), "to": number(tops[k], 4)}
            for k in range(last + 1)
            if shares[at, k] > 0
        ]
    spec: dict[str, Any] = {
        "data": {"name": "since"},
        "height": 220,
        "mark": {"type": "rect", "stroke": None},
        "encoding": {
            "x": {
                "field": "epoch",
                "type": "quantitative",
                "title": "epoch",
                "scale": {"zero": False, "nice": False},
                "axis": WHOLE | {"grid": False},
            },
            "x2": {"field": "until"},
            "y": {
                "field": "from",
                "type": "quantitative",
                "title": None,
                "axis": {"format": ".0%", "grid": False},
                "scale": {"domain": [0, 1]},
            },
            "y2": {"field": "to"},
            "color": {
                "field": "ago",
                "type": "ordinal",
                "title": "last trained",
                "sort": said,
                "scale": {"domain": said, "scheme": "viridis", "reverse": True},
                "legend": {"symbolType": "square", "columns": 2},
            },
            "tooltip": [
                {"field": "epoch", "type": "quantitative", "format": ",d"},
                {"field": "ago", "type": "nominal", "title": "last trained"},
                {"field": "share", "type": "quantitative", "format": ".1%"},
            ],
        },
    }
    alt = (
        f"Epochs since samples were last trained. In the last epoch {shares[-1, 0]:.1%} of the set "
        f"were trained, and {shares[-1, last]:.1%} not for {last} epochs or longer."
    )
    figure = Figure("since", "Epochs since samples were trained", alt, spec, "since")
    table = tuple(
        (f"{records[at]['epoch'] + 1}", *(f"{share:.1%}" for share in shares[at]))
        for at in thin(len(records), ROWS)
    )
    return Panel("Last trained", "", (figure,), ("epoch", *said), table, {"since": rows})
