"""Means, deviations and quantiles over all ranks that do not depend on how samples are spread.

Floats are summed as integers, one sum for each exponent, so the order of addition cannot matter;
quantiles are found by the same radix rounds as the mask. Nothing here looks at ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import radix
from hvdfilter.agreement.select import crossing
from hvdfilter.errors import InputError

_CHUNK = 1 << 20
_HALF = 27  # the low part of a 53-bit mantissa, so that a chunk's sums stay exact in float64


class Sums(Protocol):
    """Ranks that can add integers: all that quantiles need of a `Collective`."""

    def allreduce(self, array: NDArray[Any], /) -> NDArray[Any]:
        """The sum over the ranks; collective."""


def exact_sum(values: NDArray[Any], collective: Sums) -> tuple[Fraction, int]:
    """Exact sum and number of the finite values of all ranks; collective.

    Args:
        values: float32 or float64, any shape. Infinities and NaNs are left out.

    One allreduce of 32 KiB (two mantissa halves for each of 2,047 exponents).
    """
    sums = np.zeros((2, 2048), np.int64)
    number = 0
    flat = np.asarray(values).reshape(-1)
    for at in range(0, flat.size, _CHUNK):
        part = flat[at : at + _CHUNK].astype(np.float64)
        part = part[np.isfinite(part)]
        number += part.size
        bits = part.view(np.int64)
        exponent = (bits >> 52) & 0x7FF
        mantissa = (bits & ((1 << 52) - 1)) | np.where(exponent > 0, 1 << 52, 0)
        sign = np.where(bits < 0, -1, 1)
        for half, digits in enumerate((mantissa & ((1 << _HALF) - 1), mantissa >> _HALF)):
            summed = np.bincount(exponent, weights=digits * sign, minlength=2048)
            sums[half] += summed.astype(np.int64)
    total = collective.allreduce(np.append(sums.reshape(-1), number))
    result = Fraction(0)
    for half in range(2):
        row = total[2048 * half : 2048 * (half + 1)]
        for place in np.flatnonzero(row).tolist():
            # subnormals share the scale of exponent 1
            power = max(place, 1) - 1075 + half * _HALF
            result += Fraction(int(row[place])) * Fraction(2) ** power
    return result, int(total[-1])


def mean(values: NDArray[Any], collective: Sums) -> float:
    """Mean of the finite values of all ranks, correctly rounded; nan if there are none."""
    total, number = exact_sum(values, collective)
    return float(total / number) if number else math.nan


def moments(values: NDArray[np.float32], collective: Sums) -> tuple[float, float]:
    """Mean and population standard deviation of the finite float32 values of all ranks."""
    finite = np.asarray(values)[np.isfinite(values)]
    total, number = exact_sum(finite, collective)
    # the square of a float32 is exact in float64
    squares, _ = exact_sum(np.square(finite.astype(np.float64)), collective)
    if not number:
        return math.nan, math.nan
    average = total / number
    return float(average), math.sqrt(max(Fraction(0), squares / number - average**2))


def quantiles(
    values: NDArray[np.float32], q: Iterable[float], collective: Sums
) -> NDArray[np.float32]:
    """Quantiles of the float32 values of all ranks, all in the same three rounds; collective.

    The quantile of q is the value at place ``floor(q * (n - 1))`` of the n sorted values ("lower"
    in NumPy's words): always one of the values. NaN if no rank has a value. The values must hold no
    NaN.
    """
    wanted = [float(x) for x in q]
    if not all(0 <= x <= 1 for x in wanted):
        raise InputError(f"quantiles must lie in [0, 1], not {wanted}")
    keys = np.ascontiguousarray(values, np.float32)
    number = int(collective.allreduce(np.array([keys.size], np.int64))[0])
    if not number or not wanted:
        return np.full(len(wanted), np.nan, np.float32)
    places = [number - 1 - math.floor(Fraction(x) * (number - 1)) for x in wanted]
    return kth_largest(keys, np.array(places, np.int64), collective)


def kth_largest(
    keys: NDArray[np.float32], places: NDArray[np.int64], collective: Sums
) -> NDArray[np.float32]:
    """The keys at ``places`` (0 is the largest) of all ranks' keys; 3 allreduces; collective."""
    paths: list[tuple[int, ...]] = [()] * places.size
    rest = places.copy()
    children: list[NDArray[np.int32]] = []
    nodes: list[tuple[int, ...]] = [()]
    for level, width in enumerate(radix.WIDTHS):
        histogram = collective.allreduce(radix.count(keys, level, None, children, len(nodes), None))
        row = np.array([nodes.index(path) for path in paths], np.int64)
        digit, rest, _ = crossing(histogram[row], rest)
        paths = [(*path, int(d)) for path, d in zip(paths, digit, strict=True)]
        following = sorted(set(paths))
        child = np.full((len(nodes), width), -1, np.int32)
        for number, path in enumerate(following):
            child[nodes.index(path[:-1]), path[-1]] = number
        children.append(child)
        nodes = following
    bits = np.array(
        [sum(d << s for d, s in zip(path, radix.SHIFTS, strict=True)) for path in paths], np.uint32
    )
    return from_order_bits(bits)


def from_order_bits(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The floats whose `order_bits` these are."""
    positive = bits >> np.uint32(31) == 1
    flip = np.where(positive, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    return np.asarray((bits ^ flip).view(np.float32))
