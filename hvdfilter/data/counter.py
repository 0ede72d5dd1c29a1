"""Counter-based random bits: a hash of integers, so that any rank can make any sample's choices.

The same function for NumPy and torch (on any device), equal bit for bit. It never holds state:
what is drawn for a sample depends on the seed, the epoch and its id, not on who asks or when.
"""

from __future__ import annotations

import numpy as np
import torch

# The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each output bit depends on every input bit.
_GAMMA = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """Hash one 64-bit integer to another (a bijection), in plain Python."""
    value = (value + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _MIX1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX2) & _MASK
    return value ^ (value >> 31)


def key(*parts: int) -> int:
    """One 64-bit key from several integers (seed, epoch, purpose); their order matters."""
    state = 0
    for part in parts:
        state = mix(state ^ (part & _MASK))
    return state


def hash_numpy(ids: np.ndarray, key: int) -> np.ndarray:
    """uint64 hash of each id under a key: `mix(id ^ key)`; ids of any integer dtype and shape."""
    value: np.ndarray = ids.astype(np.uint64) ^ np.uint64(key)
    value += np.uint64(_GAMMA)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_MIX1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_MIX2)
    value ^= value >> np.uint64(31)
    return value


def hash_torch(ids: torch.Tensor, key: int) -> torch.Tensor:
    """The bits of `hash_numpy` as int64 (torch's uint64 has no arithmetic), on the ids' device."""
    value = (ids.long() ^ _signed(key)) + _signed(_GAMMA)
    value = (value ^ _shift(value, 30)) * _signed(_MIX1)
    value = (value ^ _shift(value, 27)) * _signed(_MIX2)
    return value ^ _shift(value, 31)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    # `>>` on int64 copies the sign downwards; the mask makes it the shift of an unsigned number.
    return (value >> bits) & ((1 << (64 - bits)) - 1)
