"""Global memory, at the host's own addresses; shared, one a block; local, one a thread.

Every access must be aligned and lie within what was announced.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
U32, U64 = np.uint32, np.uint64
# Where shared and local memory lie among the generic addresses: no address of a host is as high.
SHARED_WINDOW, LOCAL_WINDOW = 0x01000000, 0x02000000
TYPES: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32, 16: np.uint32}


class Fault(Exception):
    """An access that no kernel may make, or a barrier that is never reached by all."""


@dataclass
class Region:
    """Memory of the host that a launch may touch."""

    begin: int
    size: int
    touched: int = 0  # bytes loaded and stored, so far

    def words(self, step: int) -> tuple[Array, int]:
        """The memory as numbers of `step` bytes, and the address of the first."""
        begin = self.begin // step * step
        count = -(-(self.begin + self.size - begin) // step)
        buffer = (ctypes.c_ubyte * (count * step)).from_address(begin)
        return np.frombuffer(memoryview(buffer), TYPES[step]), begin


@dataclass
class Global:
    """The tensors that were announced."""

    regions: list[Region] = field(default_factory=list)

    def places(self, addresses: Array, size: int) -> list[tuple[Region, Array]]:
        """Each region that is touched, and which addresses lie in it."""
        if (addresses % U64(size)).any():
            bad = int(addresses[np.argmax(addresses % U64(size) != 0)])
            raise Fault(f"an access of {size} bytes at {bad:#x}, which is no multiple of {size}")
        found, left = [], np.ones(len(addresses), bool)
        for region in self.regions:
            inside = (addresses >= U64(region.begin)) & (
                addresses + U64(size) <= U64(region.begin + region.size)
            )
            inside &= left
            if inside.any():
                found.append((region, inside))
                region.touched += size * int(inside.sum())
                left &= ~inside
        if left.any():
            bad = int(addresses[np.argmax(left)])
            raise Fault(f"an access of {size} bytes at {bad:#x}, outside every tensor of the call")
        return found

    def load(self, addresses: Array, size: int) -> list[Array]:
        """The 32-bit words at each address."""
        step = min(size, 4)
        result = [np.zeros(len(addresses), U32) for _ in range(max(1, size // 4))]
        for region, inside in self.places(addresses, size):
            words, begin = region.words(step)
            at = (addresses[inside] - U64(begin)) // U64(step)
            for k, each in enumerate(result):
                each[inside] = words[at + U64(k)]
        return result

    def store(self, addresses: Array, size: int, values: list[Array]) -> None:
        """Write the 32-bit words to each address."""
        step = min(size, 4)
        for region, inside in self.places(addresses, size):
            words, begin = region.words(step)
            at = (addresses[inside] - U64(begin)) // U64(step)
            for k, value in enumerate(values):
                full = np.broadcast_to(value, addresses.shape)
                words[at + U64(k)] = full[inside].astype(TYPES[step])


class Rows:
    """A memory of its own for each block or thread: one row of bytes each, at first all ones."""

    def __init__(self, name: str, rows: int, size: int) -> None:
        self.name, self.size = name, -(-max(size, 16) // 16) * 16
        self.bytes = np.full((rows, self.size), 0xFF, np.uint8)

    def place(self, rows: Array, offsets: Array, size: int) -> tuple[Array, Array]:
        """The memory in steps of the access, and the number of the first step."""
        bad = (offsets.astype(U64) + U64(size) > U64(self.size)) | (offsets % U32(size) != 0)
        if bad.any():
            at = int(offsets[np.argmax(bad)])
            raise Fault(
                f"an access of {size} bytes at {at:#x} of {self.size} in {self.name} memory"
            )
        step = min(size, 4)
        flat = self.bytes.view(TYPES[step]).reshape(-1)
        return flat, (rows.astype(np.int64) * self.size + offsets) // step

    def load(self, rows: Array, offsets: Array, size: int) -> list[Array]:
        """The 32-bit words at each offset of each row."""
        flat, at = self.place(rows, offsets, size)
        return [flat[at + k].astype(U32) for k in range(max(1, size // 4))]

    def store(self, rows: Array, offsets: Array, size: int, values: list[Array]) -> None:
        """Write the 32-bit words to each offset of each row."""
        flat, at = self.place(rows, offsets, size)
        for k, value in enumerate(values):
            flat[at + k] = np.broadcast_to(value, at.shape).astype(flat.dtype)


class Constants:
    """Constant bank 0: the parameters, and what a launch tells a kernel at known places."""

    def __init__(self) -> None:
        self.words: dict[int, Array] = {}

    def put(self, at: int, data: bytes) -> None:
        """Fill a part, 4 bytes at a time."""
        padded = data + bytes(-len(data) % 4)
        for k in range(0, len(padded), 4):
            self.words[at + k] = np.frombuffer(padded[k : k + 4], U32)

    def read(self, at: int) -> Array:
        """32 bits."""
        found = self.words.get(at)
        if found is None:
            raise Fault(
                f"the constant c[0x0][{at:#x}] is not known: add it to benchmarks/sass/launch.py"
            )
        return found
