"""Where the time of runs went, part by part, and what hiding saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hvdfilter.report.compare import COST_PARTS, ROWS
from hvdfilter.report.page import theme
from hvdfilter.report.page.figure import Figure, Panel, number
from hvdfilter.report.page.groups import Group

_SHOWN = 8  # groups whose bars stand side by side


def costs(groups: Sequence[Group]) -> Panel:
    """Seconds by part of the first groups, and the whole comparison as a table."""
    shown = groups[:_SHOWN]
    labels = [group.label for group in groups]
    means = [group.summary for group in groups]
    parts = [part for part in COST_PARTS if any(mean.seconds.get(part) for mean in means)]
    rows = [
        {"run": group.label, "part": COST_PARTS[part], "seconds": number(mean.seconds.get(part, 0))}
        for group, mean in zip(shown, means, strict=False)
        for part in parts
    ]
    colour = theme.scales(labels)["color"]
    order = {"field": "part", "type": "nominal", "sort": [COST_PARTS[part] for part in parts]}
    spec: dict[str, Any] = {
        "data": {"name": "costs"},
        "height": len(parts) * (len(shown) + 1) * max(7, 20 // len(shown)),
        "mark": {"type": "bar"},
        "encoding": {
            "y": {**order, "title": None, "axis": {"labelLimit": 190, "ticks": False}},
            "yOffset": {"field": "run", "type": "nominal", "sort": labels},
            "x": {"field": "seconds", "type": "quantitative", "title": "seconds, all epochs"},
            "color": colour,
            "tooltip": [
                {"field": "run", "type": "nominal"},
                {"field": "part", "type": "nominal"},
                {"field": "seconds", "type": "quantitative", "format": ",.3f"},
            ],
        },
    }
    most = [
        f"{group.label} spent {mean.total:,.1f} s, of them "
        f"{mean.seconds.get('training', 0.0):,.1f} in training steps"
        for group, mean in zip(shown, means, strict=False)
    ]
    text = "Parts overlap where one lies inside another."
    if len(groups) > len(shown):
        text += f" The figure has the first {len(shown)} of {len(groups)} groups."
    figure = Figure("costs", "Seconds by part", f"{'; '.join(most)}.", spec, "costs")
    table = [(row.label, *(row.cell(mean) for mean in means)) for row in ROWS]
    table += _messages(groups)
    return Panel(
        "Time and bytes",
        text,
        (figure,),
        ("of all epochs", *labels),
        tuple(table),
        {"costs": rows},
        tuple(labels),
    )


def _messages(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """What ranks sent each other beside gradients, and what hiding kept off the wire."""
    found = []
    for group in groups:
        count: Counter[str] = Counter()
        for record in (record for run in group.runs for record in run.records):
            sent = record.get("bytes_sent")
            count["sent"] += sum(map(_whole, sent.values())) if isinstance(sent, dict) else 0
            count["saved"] += _whole(record.get("gradient_bytes_saved"))
        found.append({name: total / len(group.runs) / 1e6 for name, total in count.items()})
    return [
        (said, *(f"{one.get(name, 0.0):,.1f}" for one in found))
        for name, said in (
            ("saved", "gradient saved by hiding, MB a rank"),
            ("sent", "scores and masks sent, MB, rank 0"),
        )
    ]


def _whole(value: Any) -> int:
    """A count, or nothing where an older or damaged line has none."""
    return value if type(value) is int else 0
