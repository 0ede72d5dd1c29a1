"""The scales on which scores are counted: fixed, so that epochs, runs and ranks share their bins.

Values beyond the outer edges are counted in the outer bins, infinite ones are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 20
_HALVES = 22  # bits of a float32 below its exponent and the first bit of its fraction


@dataclass(frozen=True)
class Scale:
    """Bins of a score.

    name: of the score. hides_low: whether low values are the ones to hide. low, high: outer edges.
    step: the width of a bin, a power of two; 0 for bins of half an octave, low and high then
    being powers of two.
    """

    name: str
    hides_low: bool
    low: float
    high: float
    step: float = 0.0

    @property
    def edges(self) -> NDArray[np.float64]:
        """[bins + 1], ascending."""
        if self.step:
            return np.arange(self.low, self.high + self.step / 2, self.step)
        octaves = np.exp2(np.arange(np.log2(self.low), np.log2(self.high)))
        return np.append((octaves[:, None] * [1.0, 1.5]).reshape(-1), self.high)

    def histogram(
        self, values: NDArray[np.float32], hidden: NDArray[np.bool_], seen: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Counts [2 * bins]: of the values of samples that are not hidden, then of those that are.

        A bin holds its lower edge and not its upper one. values: float32 [n], no NaN; hidden [n];
        seen [n]: which values count.
        """
        bins = len(self.edges) - 1
        counts = np.zeros(2 * bins + 1, np.int64)
        for at in range(0, values.size, _CHUNK):
            part, out = values[at : at + _CHUNK], hidden[at : at + _CHUNK]
            counted = seen[at : at + _CHUNK] & np.isfinite(part)
            # One more bin for what is not counted: cheaper than to pick out what is.
            place = np.where(counted, self._bin(part, bins) + bins * out, 2 * bins)
            counts += np.bincount(place, minlength=2 * bins + 1)
        return counts[:-1]

    def _bin(self, values: NDArray[np.float32], bins: int) -> NDArray[np.int64]:
        inside = np.clip(values, np.float32(self.low), np.float32(self.high))
        if self.step:
            # Before the lower edge is taken off, which would round some values across an edge.
            step, first = np.float32(self.step), int(self.low / self.step)
            place = np.floor(inside / step).astype(np.int64) - first
        else:  # the bits of positive floats ascend with them
            lowest = np.float32(self.low).view(np.int32) >> _HALVES
            place = (inside.view(np.int32) >> _HALVES).astype(np.int64) - lowest
        return np.minimum(place, bins - 1)


SCALES = (
    Scale("loss", True, 2.0**-20, 2.0**6),
    Scale("grad_norm", True, 2.0**-20, 2.0**6),
    Scale("confidence", False, 0.0, 1.0, 2.0**-5),
    Scale("margin", False, -24.0, 24.0, 1.0),
)
