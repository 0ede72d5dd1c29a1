"""Randomness by counter: a number is a hash of (seed, stream, epoch, id) and of nothing else.

So it is the same on any number of ranks and in any order, and no state has to be saved. It never
touches the global generators of NumPy, torch or Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_FINITE = 0x7F800000  # bit patterns below this are the non-negative finite float32


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits, vectorised."""
    z = np.array(values, np.uint64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def key64(*words: int) -> int:
    """One 64-bit key from any number of integers, each of them fully mixed in."""
    state = 0
    for word in words:
        state = (state + _GOLDEN + (word & _MASK)) & _MASK
        state = int(mix64(np.array([state], np.uint64))[0])
    return state


def hash64(seed: int, epoch: int, ids: NDArray[Any], stream: int = 0) -> NDArray[np.uint64]:
    """64 random bits for each id, uint64."""
    counter = np.asarray(ids).astype(np.uint64)
    counter *= np.uint64(_GOLDEN)
    counter += np.uint64(key64(seed, stream, epoch))
    return mix64(counter)


def uniform_keys(seed: int, epoch: int, ids: NDArray[Any], stream: int = 0) -> NDArray[np.float32]:
    """Random float32 keys for `agree`: uniform in *order*, over 2.1e9 distinct finite values >= 0.

    A uniform float32 in [0, 1) has only 2^24 values, so that a million samples would tie by the
    thousand and ties would be decided by id; here the bit patterns themselves are uniform.
    """
    bits = hash64(seed, epoch, ids, stream) >> np.uint64(32)
    return (bits * np.uint64(_FINITE) >> np.uint64(32)).astype(np.uint32).view(np.float32)


def uniform01(seed: int, epoch: int, ids: NDArray[Any], stream: int = 0) -> NDArray[np.float64]:
    """Uniform float64 in [0, 1) for each id, with 53 random bits."""
    bits = hash64(seed, epoch, ids, stream) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
