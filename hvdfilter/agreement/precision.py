"""Precision: how many bytes an observed value has on its way to its owner.

    float32   4 bytes, as it is
    float16   2 bytes: half precision, scaled by a power of two
    8bit      1 byte: 254 equal stretches of the half-precision numbers between the smallest and the
              largest value, and one code for each infinity

Every code is monotone: of two values, the smaller one never gets the larger code. So the order of
the samples stays as it is but for ties, and of the `keep` largest values only those can change
whose code is that of the last one kept (docs/neighbours.md has the proof). Scale and stretches are
those of the values of all ranks in one exchange: values are coded alike on any number of ranks, a
single one among them. Infinite stays infinite and finite finite. Nothing here communicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.reference import order_bits
from hvdfilter.agreement.statistics import from_order_bits
from hvdfilter.errors import InputError

EXCHANGES = ("float32", "float16", "8bit")
_DTYPES = {"float32": "<f4", "float16": "<u2", "8bit": "<u1"}
# Codes of finite values in 8 bits; 0 and 255 are the infinities.
_STRETCHES = 254
_LARGEST = float(np.finfo(np.float32).max)
_NOTHING = -1


@dataclass(frozen=True)
class Code:
    """How the values of one name are coded in one exchange.

    low, high: the smallest and the largest finite value of all ranks.
    """

    exchange: str
    low: np.float32 = np.float32(0)
    high: np.float32 = np.float32(0)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the codes."""
        return np.dtype(_DTYPES[self.exchange])

    def encode(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Codes of values that are infinite or in [low, high]; no NaN."""
        if self.exchange == "float32":
            return values
        pattern = _order(self._half(values))
        if self.exchange == "float16":
            return pattern
        first, span = self._stretch()
        finite = 1 + (pattern.astype(np.int64) - first) * min(_STRETCHES, span) // span
        codes = np.where(values > 0, 255, 0)
        return np.where(np.isfinite(values), finite, codes).astype(np.uint8)

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """A value of each code: the middle of those that have it."""
        if self.exchange == "float32":
            return codes
        if self.exchange == "float16":
            return self._single(_half_of(codes))
        first, span = self._stretch()
        stretches = min(_STRETCHES, span)
        number = codes.astype(np.int64) - 1
        start, stop = (-(-n * span // stretches) for n in (number, number + 1))
        middle = np.clip(first + (start + stop - 1) // 2, first, first + span - 1)
        values = self._single(_half_of(middle.astype(np.uint16)))
        infinite = np.where(codes == 0, np.float32(-np.inf), np.float32(np.inf))
        return np.where((codes == 0) | (codes == 255), infinite, values)

    @property
    def _power(self) -> int:
        """Of two, that brings the largest magnitude close below the largest half."""
        return 15 - int(np.frexp(max(abs(float(self.low)), abs(float(self.high))))[1])

    def _half(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        # In float64, so that the scaling rounds nothing.
        return np.ldexp(values.astype(np.float64), self._power).astype(np.float16)

    def _single(self, halves: NDArray[np.float16]) -> NDArray[np.float32]:
        values = np.ldexp(halves.astype(np.float64), -self._power)
        # Close below the largest float32 a half may round up beyond it.
        finite = np.clip(values, -_LARGEST, _LARGEST)
        return np.where(np.isinf(halves), values, finite).astype(np.float32)

    def _stretch(self) -> tuple[int, int]:
        """The first half-precision number of the range, by order, and how many there are."""
        ends = np.array([self.low, self.high], np.float32)
        first, last = (int(n) for n in _order(self._half(ends)))
        return first, last - first + 1


class Precision:
    """The codes of the values called `names`; one of `EXCHANGES`, else `InputError`."""

    def __init__(self, exchange: str, names: Sequence[str]) -> None:
        if error := fault(exchange):
            raise error
        self._exchange, self._names = exchange, tuple(names)
        self.fields = [(name, _DTYPES[exchange]) for name in self._names]

    def extent(self, values: Mapping[str, NDArray[np.float32]]) -> list[int]:
        """Two integers a name, of which all ranks' maxima are what `codes` takes."""
        if self._exchange == "float32":
            return []
        words = []
        for name in self._names:
            known = values.get(name, np.empty(0, np.float32))
            bits = order_bits(known[np.isfinite(known)]).astype(np.int64)
            words += [int(bits.max()), (1 << 32) - int(bits.min())] if bits.size else [_NOTHING] * 2
        return words

    def codes(self, extent: Sequence[int]) -> dict[str, Code]:
        """The code of each name. extent: over all ranks, element by element the largest."""
        if self._exchange == "float32":
            return {name: Code("float32") for name in self._names}
        made = {}
        for at, name in enumerate(self._names):
            high, low = (int(word) for word in extent[2 * at : 2 * at + 2])
            if high == _NOTHING:  # nothing finite was observed anywhere
                made[name] = Code(self._exchange)
                continue
            ends = from_order_bits(np.array([(1 << 32) - low, high], np.uint32))
            made[name] = Code(self._exchange, ends[0], ends[1])
        return made


def fault(exchange: str) -> InputError | None:
    """What is wrong with `exchange`, unless it is one of `EXCHANGES`."""
    if exchange in EXCHANGES:
        return None
    return InputError(f"exchange={exchange!r} is unknown: choose from {', '.join(EXCHANGES)}")


def _order(halves: NDArray[np.float16]) -> NDArray[np.uint16]:
    """uint16 in the order of the halves, without a gap: -0.0 and 0.0 are one."""
    bits = halves.view(np.uint16)
    size = bits & np.uint16(0x7FFF)
    return np.where(bits >> np.uint16(15), np.uint16(0x8000) - size, np.uint16(0x8000) + size)


def _half_of(order: NDArray[np.uint16]) -> NDArray[np.float16]:
    """The halves whose `_order` these are."""
    negative = order < np.uint16(0x8000)
    size = np.where(negative, np.uint16(0x8000) - order, order - np.uint16(0x8000))
    return np.asarray(size | (negative.astype(np.uint16) << np.uint16(15))).view(np.float16)
