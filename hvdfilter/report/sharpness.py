"""How sharp runs are, side by side on the terminal, and their surroundings in one picture.

Rank 0 only. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hvdfilter.report.figure import blank
from hvdfilter.report.terminal import ascii_table, console, show_table
from hvdfilter.sharpness import Landscape
from hvdfilter.training.sharp_run import Sharpness
from hvdfilter.world import current

FILE = "landscape.png"
# Between two lines of a picture the loss grows by the same factor.
LINES = 16
# The lowest line, as a share of the highest: below it a loss is as good as none.
LOWEST = 1e-4


def sharpness_table(results: Sequence[Sharpness]) -> None:
    """The largest eigenvalue and how sure it is, a column a run."""
    if current().rank != 0:
        return
    shown = ascii_table("", title="Hessian of the mean training loss", title_justify="left")
    for result in results:
        shown.add_column(result.label, justify="right")
    found = [result.eigenvalue for result in results]
    rows = [
        ("largest eigenvalue", [f"{one.value:.5g}" for one in found]),
        ("within", [f"{one.residual:.1g}" for one in found]),
        ("mean training loss", [f"{one.loss:.4g}" for one in found]),
        ("samples", [f"{one.samples:,}" for one in found]),
        ("products", [f"{one.products}" for one in found]),
    ]
    if not all(one.converged for one in found):
        rows.append(("converged", ["yes" if one.converged else "NO" for one in found]))
    for label, cells in rows:
        shown.add_row(label, *cells)
    show_table(console(), shown)


def sharpness_document(results: Sequence[Sharpness], picture: Path | None) -> dict[str, Any]:
    """The same, for a program. picture: where it is drawn, if it is."""
    runs = [{"run": one.run, "label": one.label, **asdict(one.eigenvalue)} for one in results]
    return {"runs": runs, "picture": picture}


def draw_landscapes(results: Sequence[Sharpness]) -> Path | None:
    """Draw them into the first run's folder; returns the picture's path, None on other ranks."""
    if current().rank != 0:
        return None
    path = results[0].run / FILE
    grids = [(r.label, r.landscape) for r in results if r.landscape is not None]
    draw(path, grids)
    return path


def draw(path: Path, landscapes: Sequence[tuple[str, Landscape]]) -> None:
    """Contours of the mean loss, side by side: the same axes and the same lines in all."""
    wide = 0.8 + 3.4 * len(landscapes)
    figure = blank(wide, 3.9)
    from matplotlib.colors import LogNorm

    levels = contour_levels([landscape for _, landscape in landscapes])
    scale = LogNorm(levels[0], levels[-1])
    panels = figure.subplots(1, len(landscapes), sharey=True, squeeze=False)[0]
    for axes, (label, landscape) in zip(panels, landscapes, strict=True):
        # Outside the lines the loss is drawn as the nearest of them.
        loss = np.nan_to_num(landscape.loss, nan=np.inf).clip(levels[0], levels[-1])
        places = landscape.steps, landscape.steps, loss
        filled = axes.contourf(*places, levels=levels, norm=scale, cmap="viridis")
        axes.contour(*places, levels=levels, colors="black", linewidths=0.4, alpha=0.6)
        axes.plot(0, 0, "+", color="white", markersize=7)
        axes.set_title(f"{label}\nloss {landscape.centre:.3g} at +", fontsize=9)
        axes.set_xlabel("first direction", fontsize=8)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("second direction", fontsize=8)
    bar = figure.colorbar(filled, ax=list(panels), shrink=0.8, format="%.3g")
    bar.set_label("mean training loss", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=130)


def contour_levels(landscapes: Sequence[Landscape]) -> np.ndarray:
    """`LINES` losses, from the lowest of all landscapes to the highest finite one.

    Where the lowest is next to nothing, from `LOWEST` of the highest.
    """
    losses = np.concatenate([landscape.loss.reshape(-1) for landscape in landscapes])
    losses = losses[np.isfinite(losses)]
    high = max(float(losses.max()), float(np.finfo(np.float32).tiny))
    low = max(float(losses.min()), high * LOWEST)
    return np.geomspace(low, max(high, low * 1.01), LINES)
