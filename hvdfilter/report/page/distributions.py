"""How scores were distributed through training, what was hidden of them, and the threshold.

Of one run, the subject, from the bins that it noted; left out where it noted none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.report.page.figure import ROWS, Figure, Panel, Row, cells, number, stretches, thin
from hvdfilter.report.page.groups import Record, Run

BINS = 32
_NAMES = {
    "loss": "Loss",
    "grad_norm": "Gradient norm",
    "confidence": "Confidence",
    "margin": "Margin",
}


def scores(run: Run) -> Panel | None:
    """How each score was distributed, and what of it was hidden, with the threshold."""
    noted: dict[str, list[Record]] = {}
    for record in run.records:
        for name in record.get("scores") or {}:
            noted.setdefault(name, []).append(record)
    figures: list[Figure] = []
    data: dict[str, list[Row]] = {}
    told: list[tuple[str, ...]] = []
    for name in sorted(noted, key=lambda name: (list(_NAMES) + [name]).index(name)):
        records, title = noted[name], _NAMES.get(name, name)
        data[f"score-{name}"], data[f"threshold-{name}"] = _bins(records, name)
        figures += _distribution(records, name, title)
        for at in thin(len(records), ROWS):
            median = _median(records[at]["scores"][name])
            threshold = records[at]["scores"][name]["threshold"]
            told.append(
                (
                    title,
                    f"{records[at]['epoch'] + 1}",
                    *(f"{count:,d}" for count in _counts(records[at], name)),
                    median,
                    "" if threshold is None else f"{threshold:.4g}",
                )
            )
    if not figures:
        return None
    return Panel(
        "Scores through training",
        "Samples: where they are, as a share of all. Hidden: how many of those that are there were "
        "hidden. The white line is the threshold, the last score that was hidden. The lowest and "
        "the highest bin hold what lies beyond them, too.",
        tuple(figures),
        ("score", "epoch", "kept", "hidden", "median", "threshold"),
        tuple(told),
        data,
    )


def _distribution(records: Sequence[Record], name: str, title: str) -> list[Figure]:
    last = records[-1]["scores"][name]
    median, threshold = _median(last), last["threshold"]
    at = "" if threshold is None else f" The threshold is {threshold:.4g}."
    middle = f" its median is {median}." if median else ""
    edges = np.array([edge for r in records for edge in r["scores"][name]["edges"]])
    scale = _scale(edges)
    y = {
        "field": "low",
        "type": "quantitative",
        "title": None,
        "scale": scale,
        "axis": {"grid": False} | ({"format": "~e"} if scale.get("type") == "log" else {}),
    }
    known = any(r["scores"][name]["threshold"] is not None for r in records)
    pop_up = (
        ("epoch", "epoch", ",d"),
        ("low", f"{title} from", ".3~g"),
        ("high", "to", ".3~g"),
        ("kept", "kept", ",d"),
        ("hidden", "hidden", ",d"),
    )
    every: dict[str, Any] = {
        **{"data": f"score-{name}", "y": y, "y2": "high", "told": pop_up},
        **{"line": "threshold" if known else None, "line_data": f"threshold-{name}"},
    }
    return [
        cells(
            f"score-{name}",
            f"{title}: samples",
            f"Distribution of {title.lower()} by epoch. In the last epoch{middle or ' nothing.'}"
            f"{at}",
            colour="share",
            colour_title="share of samples",
            rooted=True,
            shown=".0%",
            **every,
        ),
        cells(
            f"score-{name}-hidden",
            f"{title}: hidden",
            f"Share of the samples that was hidden, by epoch and {title.lower()}.{at}",
            colour="gone",
            colour_title="share hidden",
            shown=".0%",
            top=1.0,
            **every,
        ),
    ]


def _bins(records: Sequence[Record], name: str) -> tuple[list[Row], list[Row]]:
    """The cells of a score, neighbouring bins taken together, and its threshold by epoch."""
    rows: list[Row] = []
    line: list[Row] = []
    for at, cell in stretches(records):
        said = records[at]["scores"][name]
        edges = np.array(said["edges"], np.float64)
        starts = np.arange(0, len(edges) - 1, -(-(len(edges) - 1) // BINS))
        kept, gone = (np.add.reduceat(np.array(said[part]), starts) for part in ("kept", "hidden"))
        ends = edges[[*starts[1:], len(edges) - 1]]
        total = max(int((kept + gone).sum()), 1)
        for low, high, stays, goes in zip(edges[starts], ends, kept, gone, strict=True):
            if both := int(stays + goes):
                row = cell | {"low": number(low, 4), "high": number(high, 4)}
                row |= {"kept": int(stays), "hidden": int(goes)}
                rows.append(
                    row | {"share": number(both / total, 3), "gone": number(goes / both, 3)}
                )
        drawn = said["threshold"]
        if drawn is not None:  # beyond the bins there is nothing to see
            drawn = float(np.clip(drawn, edges[0], edges[-1]))
        line.append({"epoch": cell["epoch"], "threshold": number(drawn, 5)})
    # A step goes on to the end of the last epoch.
    line.append({"epoch": rows[-1]["until"] if rows else 1, "threshold": line[-1]["threshold"]})
    return rows, line


def _scale(edges: NDArray[np.float64]) -> dict[str, Any]:
    """Logarithmic where the bins are: their widths grow with the score."""
    if edges.min() > 0 and edges.max() > 1e3 * edges.min():
        return {"type": "log", "nice": False}
    return {"zero": False, "nice": False}


def _counts(record: Record, name: str) -> tuple[int, int]:
    said = record["scores"][name]
    return sum(said["kept"]), sum(said["hidden"])


def _median(said: dict[str, Any]) -> str:
    """About the middle of the bin that the middle sample lies in; the outer bins have none.

    Of two samples in the middle the larger one counts.
    """
    counts, edges = np.array(said["kept"]) + np.array(said["hidden"]), said["edges"]
    if not counts.sum() or len(counts) < 2:
        return ""
    at = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2, side="right"))
    if at == 0:
        return f"below {edges[1]:.3g}"
    if at == len(counts) - 1:
        return f"at least {edges[-2]:.3g}"
    return f"about {(edges[at] + edges[at + 1]) / 2:.3g}"
