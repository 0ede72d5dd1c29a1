"""Mean and variance of a random vector, coordinate by coordinate, from a stream of its values."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Moments:
    """Two vectors in memory, however many values are added (Welford 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._spread = torch.zeros(())

    def add(self, value: Tensor) -> None:
        """One more value, float [d]."""
        self.count += 1
        away = value - self._mean
        self._mean = self._mean + away / self.count
        self._spread = self._spread + away * (value - self._mean)

    @property
    def mean(self) -> Tensor:
        """Of the values so far, [d]."""
        return self._mean

    @property
    def variance(self) -> float:
        """Mean over the coordinates of their variance, unbiased; NaN before the second value."""
        return float(self._unbiased().double().mean()) if self.count > 1 else math.nan

    @property
    def normalised(self) -> float:
        """Mean over the coordinates of V[g] / E[g^2], in [0, 1] but for chance.

        Both are estimated without bias. Coordinates that were always 0 say nothing and are left
        out; NaN before the second value, or where there is no other coordinate.
        """
        if self.count < 2:
            return math.nan
        second = self._spread / self.count + self._mean.square()
        alive = second > 0
        return float((self._unbiased()[alive].double() / second[alive]).mean())

    def _unbiased(self) -> Tensor:
        return self._spread / (self.count - 1)
