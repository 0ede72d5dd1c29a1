"""What runs survive, side by side on the terminal: one table a norm, rank 0 only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hvdfilter.report.terminal import ascii_table, console, show_table
from hvdfilter.training.robust_run import Robustness
from hvdfilter.world import current

# What a norm's table says without being asked: on 8x8 to 32x32 images of [0, 1].
RADII = {"l2": (0.1, 0.25, 0.5, 1.0), "linf": (1 / 255, 4 / 255, 8 / 255, 16 / 255)}


def robustness_tables(
    results: Sequence[Robustness], radii: Mapping[str, Sequence[float]] = RADII
) -> None:
    """Median, mean and the share that survives each radius, a column a run."""
    if current().rank != 0:
        return
    for norm in results[0].radii:
        shown = ascii_table(
            "largest perturbation survived", title=f"{norm}, black 0, white 1", title_justify="left"
        )
        for result in results:
            shown.add_column(result.label, justify="right")
        rows = [
            ("median", [_number(result.median(norm)) for result in results]),
            ("mean", [_number(result.mean(norm)) for result in results]),
            ("right as they are", [f"{result.survived(norm, 0):.1%}" for result in results]),
        ]
        for radius in radii[norm]:
            shares = [f"{result.survived(norm, radius):.1%}" for result in results]
            rows.append((f"right within {radius:.3g}", shares))
        for label, cells in rows:
            shown.add_row(label, *cells)
        show_table(console(), shown)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def robustness_document(
    results: Sequence[Robustness], radii: Mapping[str, Sequence[float]] = RADII
) -> dict[str, Any]:
    """The same, for a program: a radius that no attack reached is null."""
    return {
        "runs": [
            {
                "run": result.run,
                "data": result.data,
                "norms": {
                    norm: {
                        "median": result.median(norm),
                        "mean": result.mean(norm),
                        "right": result.survived(norm, 0),
                        "right_within": [[r, result.survived(norm, r)] for r in radii[norm]],
                    }
                    for norm in result.radii
                },
            }
            for result in results
        ]
    }
