"""Empty figures, where matplotlib is there to draw them."""

from __future__ import annotations

from typing import Any

from hvdfilter.errors import InputError


def blank(width: float, height: float) -> Any:
    """A matplotlib `Figure` of so many inches; `InputError` where there is no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError("figures need matplotlib: pip install 'hvdfilter[report]'") from None
    return Figure(figsize=(width, height), layout="constrained")
