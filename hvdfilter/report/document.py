"""What `--json` prints: one JSON document on rank 0, and nothing else on standard output.

What is no number (NaN, infinite) is null, a path is text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvdfilter import world


def show(document: Any, as_json: bool = True, otherwise: str = "") -> None:
    """Print the document, or the line that people read instead where JSON is not asked for."""
    if world.started() and world.current().rank != 0:
        return
    if as_json:
        print(json.dumps(plain(document), indent=1), flush=True)
    elif otherwise:
        print(otherwise, flush=True)


def plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
