"""The counting passes of the selection in plain NumPy: slow and plainly right.

`hvdfilter.agreement.radix` has the native functions of the same names, which tests hold against
these. Nothing here communicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bits of each of the three digits of a key, most significant first, and their right shifts.
SHIFTS = (21, 10, 0)
WIDTHS = (2048, 2048, 1024)

_CHUNK = 1 << 16


def order_bits(keys: NDArray[np.float32]) -> NDArray[np.uint32]:
    """uint32 in the order of the floats: flip all bits if negative, else the sign bit.

    -0.0 becomes 0.0 first. NaNs fall in the first and the last of the 2048 leading digits.
    """
    bits = keys.view(np.uint32)
    bits = np.where(bits == np.uint32(0x80000000), np.uint32(0), bits)
    flip = np.where(bits >> np.uint32(31), np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return np.asarray(bits ^ flip)


def count(
    keys: NDArray[np.float32],
    level: int,
    groups: NDArray[np.int32] | None,
    children: Sequence[NDArray[np.int32]],
    nodes: int,
    weights: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Histogram of digit ``level`` of the keys that belong to a live node: int64[nodes, width].

    A key starts at the node of its group (0 without groups); ``children[l][node, digit]`` leads on
    to its node at level ``l + 1``, or is -1 where nobody is interested any more.
    """
    width = WIDTHS[level]
    result = np.zeros(nodes * width, np.int64)
    for at in range(0, keys.size, _CHUNK):
        part = slice(at, at + _CHUNK)
        bits = order_bits(keys[part])
        node: NDArray[Any] = np.zeros(bits.size, np.int64) if groups is None else groups[part]
        weight = None if weights is None else weights[part]
        for step in range(level):
            digit = (bits >> np.uint32(SHIFTS[step])) & np.uint32(WIDTHS[step] - 1)
            node = children[step][node, digit]
            live = node >= 0
            bits, node = bits[live], node[live]
            weight = None if weight is None else weight[live]
        digit = (bits >> np.uint32(SHIFTS[level])) & np.uint32(width - 1)
        place = node.astype(np.int64) * width + digit
        if weight is None:
            result += np.bincount(place, minlength=result.size)
        else:
            np.add.at(result, place, weight)
    return result.reshape(nodes, width)


def emit(
    keys: NDArray[np.float32],
    thresholds: NDArray[np.uint32],
    rest: NDArray[np.int64],
    groups: NDArray[np.int32] | None,
    weights: NDArray[np.int64] | None,
) -> NDArray[np.bool_]:
    """Whether each key is above its group's threshold, or tied and within the first ``rest``.

    Ties are taken in the order of the array for as long as their summed weight (or number) stays
    within ``rest`` of their group.
    """
    result = np.empty(keys.size, np.bool_)
    left = rest.copy()
    for at in range(0, keys.size, _CHUNK):
        part = slice(at, at + _CHUNK)
        bits = order_bits(keys[part])
        node: NDArray[Any] = np.zeros(bits.size, np.int64) if groups is None else groups[part]
        threshold = thresholds[node]
        result[part] = bits > threshold
        tied = np.flatnonzero(bits == threshold)
        for group in np.unique(node[tied]):
            mine = tied[node[tied] == group]
            amount = np.ones(mine.size, np.int64) if weights is None else weights[part][mine]
            within = np.cumsum(amount) <= left[group]
            result[at + mine[within]] = True
            left[group] -= amount.sum()
    return result


def first_nan(keys: NDArray[np.float32]) -> int | None:
    """Index of the first NaN, or None."""
    found = np.flatnonzero(np.isnan(keys))
    return int(found[0]) if found.size else None
