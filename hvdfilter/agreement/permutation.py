"""A pseudo-random permutation of [0, n) that is evaluated place by place, with no array of n.

Small sets (n <= 65,536) use a sorted table of hashes; larger ones a Feistel network. It holds no
state but its keys: the same arguments give the same permutation everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.random import hash64, key64, mix64

_TABLE = 1 << 16
_ROUNDS = 6


class Permutation:
    """A bijection of ``[0, n)`` keyed by any number of integers; call it on int64 places.

    The network (Black and Rogaway 2002, "generalised Feistel") works on a x b >= n places with
    a = ceil(sqrt(n)) and b = ceil(n / a), adding a hash of one half to the other modulo its size;
    the at most a - 1 surplus places are walked along their cycle back into the set.
    """

    def __init__(self, n: int, *keys: int) -> None:
        self.n = n
        self._table: NDArray[np.int64] | None = None
        self._inverse: NDArray[np.int64] | None = None
        if n <= _TABLE:
            order = hash64(key64(*keys), 0, np.arange(n))
            self._table = np.argsort(order, kind="stable")
        self._rounds = [np.uint64(key64(*keys, number)) for number in range(_ROUNDS)]
        self._a = math.isqrt(max(n - 1, 0)) + 1
        self._b = -(-n // self._a)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images of ``places``, each in ``[0, n)``; int64, same shape."""
        return self._table[places] if self._table is not None else self._walk(self._once, places)

    def inverse(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of ``images``: ``inverse(self(places))`` equals ``places``."""
        if self._table is None:
            return self._walk(self._back, images)
        if self._inverse is None:
            self._inverse = np.empty_like(self._table)
            self._inverse[self._table] = np.arange(self.n)
        return self._inverse[images]

    def _walk(
        self, step: Callable[[NDArray[np.int64]], NDArray[np.int64]], places: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        result = step(places)
        outside = np.flatnonzero(result >= self.n)
        while outside.size:
            result[outside] = step(result[outside])
            outside = outside[result[outside] >= self.n]
        return result

    def _once(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        left, right = np.divmod(places, self._b)
        for number, key in enumerate(self._rounds):
            if number % 2 == 0:
                left = _shifted(left, right, key, self._a)
            else:
                right = _shifted(right, left, key, self._b)
        return left * self._b + right

    def _back(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        left, right = np.divmod(images, self._b)
        for number, key in reversed(list(enumerate(self._rounds))):
            if number % 2 == 0:
                left = _shifted(left, right, key, self._a, back=True)
            else:
                right = _shifted(right, left, key, self._b, back=True)
        return left * self._b + right


def _shifted(
    half: NDArray[np.int64],
    other: NDArray[np.int64],
    key: np.uint64,
    modulus: int,
    back: bool = False,
) -> NDArray[np.int64]:
    """half + hash(other) modulo ``modulus``, the hash spread over it by its upper 32 bits.

    back: half - hash(other) instead.
    """
    bits = mix64(other.astype(np.uint64) ^ key) >> np.uint64(32)
    shift = (bits * np.uint64(modulus) >> np.uint64(32)).astype(np.int64)
    moved = half + (modulus - shift if back else shift)
    return np.where(moved >= modulus, moved - modulus, moved)
