"""A pseudo-random permutation of [0, n) that is evaluated place by place, with no array of n.

Small sets (n <= 65,536) use a sorted table of hashes; larger ones a Feistel network. It holds no
state but its keys: the same arguments give the same permutation everywhere.
"""

from __future__ import annotations

import math

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
        if n <= _TABLE:
            order = hash64(key64(*keys), 0, np.arange(n))
            self._table = np.argsort(order, kind="stable")
        self._rounds = [np.uint64(key64(*keys, number)) for number in range(_ROUNDS)]
        self._a = math.isqrt(max(n - 1, 0)) + 1
        self._b = -(-n // self._a)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images of ``places``, each in ``[0, n)``; int64, same shape."""
        if self._table is not None:
            return self._table[places]
        result = self._once(places)
        outside = np.flatnonzero(result >= self.n)
        while outside.size:
            result[outside] = self._once(result[outside])
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


def _shifted(
    half: NDArray[np.int64], other: NDArray[np.int64], key: np.uint64, modulus: int
) -> NDArray[np.int64]:
    """half + hash(other) modulo ``modulus``, the hash spread over it by its upper 32 bits."""
    bits = mix64(other.astype(np.uint64) ^ key) >> np.uint64(32)
    moved = half + (bits * np.uint64(modulus) >> np.uint64(32)).astype(np.int64)
    return np.where(moved >= modulus, moved - modulus, moved)
