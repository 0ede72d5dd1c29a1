"""The counting passes of the selection, native: each reads a rank's keys once.

Thin wrappers that allocate the results and pass addresses; `hvdfilter.agreement.reference` has the
same functions in plain NumPy. Nothing here communicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter import native
from hvdfilter.agreement.reference import SHIFTS, WIDTHS

__all__ = ["SHIFTS", "WIDTHS", "count", "emit", "first_nan"]


def count(
    keys: NDArray[np.float32],
    level: int,
    groups: NDArray[np.int32] | None,
    children: Sequence[NDArray[np.int32]],
    nodes: int,
    weights: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Histogram of digit ``level`` of the keys at a live node: int64 [nodes, width]."""
    result = np.zeros((nodes, WIDTHS[level]), np.int64)
    child = [_address(table) for table in children[:level]] + [0] * (2 - level)
    native.cpu().radix_count(
        _address(keys), keys.size, _address(groups), _address(weights), level, *child, nodes,
        _address(result),
    )  # fmt: skip
    return result


def emit(
    keys: NDArray[np.float32],
    thresholds: NDArray[np.uint32],
    rest: NDArray[np.int64],
    groups: NDArray[np.int32] | None,
    weights: NDArray[np.int64] | None,
) -> NDArray[np.bool_]:
    """Whether each key is above its group's threshold, or tied and within the first ``rest``."""
    result = np.empty(keys.size, np.bool_)
    left = rest.copy()
    native.cpu().radix_emit(
        _address(keys), keys.size, _address(groups), _address(weights), _address(thresholds),
        _address(left), _address(result),
    )  # fmt: skip
    return result


def first_nan(keys: NDArray[np.float32]) -> int | None:
    """Index of the first NaN, or None."""
    found = int(native.cpu().first_nan(_address(keys), keys.size))
    return None if found < 0 else found


def _address(array: NDArray[Any] | None) -> int:
    return 0 if array is None else array.ctypes.data
