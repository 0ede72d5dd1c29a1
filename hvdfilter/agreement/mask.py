"""KeepMask: which samples are kept, one bit each, immutable, with a digest any tool can recompute.

It never communicates: `hvdfilter.agreement.select.merge` builds one from the blocks of all ranks.
The digest is the SHA-256 of ``num_samples`` as 8 little-endian bytes followed by the packed bytes;
sample i is bit ``i % 8`` (least significant first) of byte ``i // 8``, and unused bits are 0.
"""

from __future__ import annotations

import hashlib
import operator
import os
import struct
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter import files
from hvdfilter.errors import InputError

MAGIC = b"HVDFMASK"
VERSION = 1
#: magic, version, zero, num_samples, count, digest; then the packed bytes.
HEADER = struct.Struct("<8sIIQQ32s")

_CHUNK = 8192  # positions looked up at a time: 16 bytes of mask are summed for each
_STRIDE = 16  # bytes of mask per entry of the rank index
_POPCOUNT = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint8)
# _NTH_BIT[byte, j] is the position of the j-th set bit of byte, counted from the lowest
_NTH_BIT = np.zeros((256, 8), np.uint8)
for _byte in range(256):
    for _j, _bit in enumerate(b for b in range(8) if _byte >> b & 1):
        _NTH_BIT[_byte, _j] = _bit


def count_bits(packed: NDArray[np.uint8]) -> int:
    """Set bits of a packed array, a megabyte at a time."""
    step = 1 << 20
    parts = (packed[at : at + step] for at in range(0, packed.size, step))
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return sum(int(np.bitwise_count(part).sum(dtype=np.int64)) for part in parts)
    return sum(int(_POPCOUNT[part].sum(dtype=np.int64)) for part in parts)


class KeepMask:
    """An immutable set of kept samples out of ``num_samples``; ``ceil(num_samples / 8)`` bytes.

    Args:
        packed: uint8 array of ``ceil(num_samples / 8)`` bytes, least significant bit first.
        num_samples: size of the whole set, kept or not.

    Set operations ``|``, ``&``, ``-``, ``~`` and ``==`` need masks of the same ``num_samples``.
    """

    def __init__(self, packed: NDArray[np.uint8], num_samples: int) -> None:
        if num_samples < 1:
            raise InputError(f"num_samples is {num_samples}; it must be at least 1")
        packed = np.ascontiguousarray(packed, np.uint8)
        if packed.shape != ((num_samples + 7) // 8,):
            raise InputError(
                f"a mask of {num_samples} samples has {(num_samples + 7) // 8} bytes, "
                f"not an array of shape {packed.shape}"
            )
        if num_samples % 8 and packed[-1] >> (num_samples % 8):
            raise InputError(f"the mask has bits set beyond its {num_samples} samples")
        if packed.flags.writeable:
            packed = packed.view()
            packed.flags.writeable = False
        self.num_samples = num_samples
        self.packed = packed

    @classmethod
    def from_bools(cls, keep: NDArray[Any]) -> KeepMask:
        """From a bool array of shape [num_samples]."""
        keep = np.asarray(keep, bool)
        return cls(np.packbits(keep, bitorder="little"), keep.size)

    @classmethod
    def full(cls, num_samples: int) -> KeepMask:
        """Every sample kept."""
        return ~cls(np.zeros((max(num_samples, 1) + 7) // 8, np.uint8), num_samples)

    @cached_property
    def count(self) -> int:
        """How many samples are kept."""
        return count_bits(self.packed)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over num_samples (8 bytes, little-endian) and the packed bytes, in hex."""
        content = hashlib.sha256(struct.pack("<Q", self.num_samples))
        content.update(self.packed.data)
        return content.hexdigest()

    def numpy(self, start: int | None = None, stop: int | None = None) -> NDArray[np.bool_]:
        """A new bool array over ``[start, stop)``, by default all; only these are unpacked."""
        low = 0 if start is None else max(0, start)
        high = self.num_samples if stop is None else min(stop, self.num_samples)
        if low >= high:
            return np.empty(0, np.bool_)
        first = low // 8
        bits = np.unpackbits(self.packed[first : (high + 7) // 8], bitorder="little")
        return bits[low - 8 * first : high - 8 * first].view(np.bool_)

    def kept_ids(self, start: int | None = None, stop: int | None = None) -> NDArray[np.int64]:
        """Kept ids in ``[start, stop)``, ascending, int64; only these bytes are unpacked."""
        return np.flatnonzero(self.numpy(start, stop)) + max(0, start or 0)

    def count_between(self, start: int, stop: int) -> int:
        """How many ids in ``[start, stop)`` are kept."""
        low, high = max(0, start), min(stop, self.num_samples)
        if low >= high:
            return 0
        inner, outer = -(-low // 8), high // 8
        if inner >= outer:
            return int(self.kept_ids(low, high).size)
        edges = self.kept_ids(low, 8 * inner).size + self.kept_ids(8 * outer, high).size
        return count_bits(self.packed[inner:outer]) + int(edges)

    def nth(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """The ids of the kept samples at ``positions`` (0 is the smallest kept id), int64.

        Needs ``num_samples / 16`` bytes of index, made at the first call, and no array of all ids.
        """
        positions = np.asarray(positions, np.int64)
        if positions.size and not (0 <= positions.min() and positions.max() < self.count):
            raise IndexError(f"positions must lie in [0, {self.count})")
        result = np.empty(positions.shape, np.int64)
        for at in range(0, positions.size, _CHUNK):
            result[at : at + _CHUNK] = self._nth(positions[at : at + _CHUNK])
        return result

    def _nth(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        stride = np.searchsorted(self._ranks, positions, side="right") - 1
        rest = positions - self._ranks[stride]
        rows = self._strides[stride]
        sums = np.cumsum(_POPCOUNT[rows], axis=1, dtype=np.int16)
        column = (sums <= rest[:, None]).sum(axis=1)
        line = np.arange(positions.size)
        before = np.where(column > 0, sums[line, column - 1], 0)
        bit = _NTH_BIT[rows[line, column], rest - before]
        return (stride * _STRIDE + column) * 8 + bit

    def contains(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each id is kept, bool; an id outside the set is not."""
        ids = np.asarray(ids, np.int64)
        inside = (ids >= 0) & (ids < self.num_samples)
        safe = np.where(inside, ids, 0)
        bits = (self.packed[safe >> 3] >> (safe & 7).astype(np.uint8)) & 1
        return np.asarray(inside & bits.astype(np.bool_))

    def __contains__(self, sample: Any) -> bool:
        index = operator.index(sample)
        if not 0 <= index < self.num_samples:
            return False
        return bool(self.packed[index >> 3] >> (index & 7) & 1)

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeepMask):
            return NotImplemented
        return self.num_samples == other.num_samples and np.array_equal(self.packed, other.packed)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __or__(self, other: KeepMask) -> KeepMask:
        return KeepMask(self.packed | self._same(other).packed, self.num_samples)

    def __and__(self, other: KeepMask) -> KeepMask:
        return KeepMask(self.packed & self._same(other).packed, self.num_samples)

    def __sub__(self, other: KeepMask) -> KeepMask:
        return KeepMask(self.packed & ~self._same(other).packed, self.num_samples)

    def __invert__(self) -> KeepMask:
        flipped = ~self.packed
        if self.num_samples % 8:
            flipped[-1] &= (1 << self.num_samples % 8) - 1
        return KeepMask(flipped, self.num_samples)

    def __repr__(self) -> str:
        return f"KeepMask({self.count} of {self.num_samples} kept, {self.digest[:12]})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask; a reader sees the old file or the whole new one, never a part.

        Raises `InputError` where it cannot be written.
        """
        target = Path(path)
        header = HEADER.pack(
            MAGIC, VERSION, 0, self.num_samples, self.count, bytes.fromhex(self.digest)
        )
        # Every rank may save its mask, which is the same, to the one path.
        writer = f"{os.uname().nodename}.{os.getpid()}"
        with files.replacing(target, "keep-mask", writer=writer) as file:
            file.write(header)
            file.write(self.packed.data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeepMask:
        """Read a mask. InputError names the file when it is no mask, cut short or damaged."""
        with files.opened(Path(path)) as file:
            raw = file.read(HEADER.size)
            if len(raw) < HEADER.size or not raw.startswith(MAGIC):
                raise InputError(f"{os.fspath(path)} is not a keep-mask file")
            _, version, _, num_samples, count, digest = HEADER.unpack(raw)
            if version != VERSION:
                raise InputError(
                    f"{os.fspath(path)} has mask format {version}; this version reads {VERSION}"
                )
            packed = np.frombuffer(file.read(), np.uint8)
        if num_samples < 1 or packed.size != (num_samples + 7) // 8:
            raise InputError(
                f"{os.fspath(path)} is cut short or damaged: {packed.size} bytes of mask for "
                f"{num_samples} samples"
            )
        content = hashlib.sha256(struct.pack("<Q", num_samples) + packed.tobytes()).digest()
        if content != digest:
            raise InputError(f"{os.fspath(path)} is damaged: its content has another digest")
        mask = cls(packed, num_samples)
        if mask.count != count:
            raise InputError(f"{os.fspath(path)} is damaged: its header has another count")
        return mask

    def _same(self, other: KeepMask) -> KeepMask:
        if self.num_samples != other.num_samples:
            raise InputError(
                f"masks of {self.num_samples} and {other.num_samples} samples cannot be combined"
            )
        return other

    @cached_property
    def _strides(self) -> NDArray[np.uint8]:
        rows = -(-self.packed.size // _STRIDE)
        if rows * _STRIDE == self.packed.size:
            return self.packed.reshape(rows, _STRIDE)
        padded = np.zeros(rows * _STRIDE, np.uint8)
        padded[: self.packed.size] = self.packed
        return padded.reshape(rows, _STRIDE)

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        """Kept samples before each stride of the mask."""
        counts = np.concatenate(
            [
                _POPCOUNT[self._strides[at : at + 16384]].sum(axis=1, dtype=np.int64)
                for at in range(0, len(self._strides), 16384)
            ]
        )
        return np.concatenate([[0], np.cumsum(counts)[:-1]])
