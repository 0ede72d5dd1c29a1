"""The decoded cache: all pixels of a set of encoded images in one file, mapped by a node's ranks.

Here are the file's form, how a block of it is made and checked, and the set that reads it. Who
makes which block, and who waits for whom, is `training.decoded_cache`'s. A file under its final
name is whole and was on the disk before it got that name.

Layout: 4096 bytes of head (the eight bytes `hvdfpixl`, the key, and as little-endian int64 the
number of samples, C, H, W and the samples of a block), the pixels as uint8 [N, C, H, W], and a
CRC-32 for each block as little-endian uint32. Nothing else in it is trusted: the key is a digest of
all that the pixels are made from, and the form follows from the set that asks for it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvdfilter import files
from hvdfilter.data.encoded import EncodedImages
from hvdfilter.data.images import ArrayImages, Description
from hvdfilter.errors import InputError

VERSION = 1
"""Of the layout and of how `codec` decodes: a change of either makes new files."""

BLOCK = 1 << 25
"""Bytes of pixels that are made, and checked, at a time; one sample at least."""

CHUNK = 4096
"""Samples whose identity one rank looks up at a time."""

_MAGIC, _HEAD = b"hvdfpixl", 4096
WHAT = "the decoded cache"


@dataclass(frozen=True)
class Layout:
    """What a file must look like. key: hex; shape: (C, H, W); rows: samples of a block."""

    key: str
    count: int
    shape: tuple[int, int, int]
    rows: int

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.count // self.rows)

    @property
    def table(self) -> int:
        """Where the checksums begin, in bytes."""
        return _HEAD + self.count * math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.table + 4 * self.blocks

    def ids(self, block: int) -> np.ndarray:
        """The samples of a block."""
        return np.arange(block * self.rows, min((block + 1) * self.rows, self.count))

    def place(self, block: int) -> tuple[int, int]:
        """(offset, bytes) of a block."""
        start = _HEAD + block * self.rows * math.prod(self.shape)
        return start, min(self.rows * math.prod(self.shape), self.table - start)

    def head(self) -> bytes:
        """The first bytes of the file."""
        numbers = np.array([self.count, *self.shape, self.rows], "<i8").tobytes()
        return (_MAGIC + bytes.fromhex(self.key) + numbers).ljust(_HEAD, b"\0")


def identity_of(images: EncodedImages, chunk: int) -> bytes:
    """Digest of what the samples of a chunk are read from; reads none of them."""
    assert images.identity is not None
    start = chunk * CHUNK
    facts = images.identity(start, min(start + CHUNK, len(images)))
    return hashlib.sha256(facts.encode(errors="surrogateescape")).digest()


def layout_of(images: EncodedImages, identity: bytes) -> Layout:
    """The layout of a set's file. identity: the digests of all chunks, in order."""
    import PIL

    made_by = [VERSION, PIL.__version__, images.shape, images.resize, len(images)]
    key = hashlib.sha256(json.dumps(made_by).encode() + identity).hexdigest()
    rows = max(1, BLOCK // math.prod(images.shape))
    return Layout(key, len(images), images.shape, rows)


def wrong(path: Path, layout: Layout) -> str | None:
    """Why a file is not of this layout, in words; None if it is, as far as its ends tell."""
    with files.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != layout.size:
            return f"has {size} bytes instead of {layout.size}"
        return None if file.read(_HEAD) == layout.head() else "begins as no such file does"


def intact(number: int, layout: Layout, block: int) -> bool:
    """Whether a block of an open file has the checksum that it was written with."""
    start, length = layout.place(block)
    data = memoryview(bytearray(length))
    if os.preadv(number, [data], start) != length:
        return False
    stored = os.pread(number, 4, layout.table + 4 * block)
    return stored == zlib.crc32(data).to_bytes(4, "little")


def reserve(path: Path, layout: Layout) -> None:
    """Make a file with room for all of it; `InputError` saying how much that is where there is not.

    The disk's room is taken before anything is decoded, and not found missing hours later.
    """
    try:
        with open(path, "wb") as file:
            free = shutil.disk_usage(path.parent).free
            if free < layout.size:
                raise _no_room(path.parent, layout, f"of which {free} are free")
            _allocate(file.fileno(), layout.size)
            file.write(layout.head())
    except OSError as failed:
        if failed.errno in files.NO_ROOM:
            raise _no_room(path.parent, layout, os.strerror(failed.errno)) from failed
        raise files.unwritable(path, failed, WHAT) from failed


def make(path: Path, layout: Layout, images: EncodedImages, block: int) -> None:
    """Decode a block, and write it with its checksum into a file that was reserved."""
    data = images.decoded(layout.ids(block), block=8).numpy().reshape(-1).data
    try:
        with open(path, "r+b", buffering=0) as file:
            start, _ = layout.place(block)
            rest = data
            while rest:
                done = os.pwrite(file.fileno(), rest, start)
                start, rest = start + done, rest[done:]
            checksum = zlib.crc32(data).to_bytes(4, "little")
            os.pwrite(file.fileno(), checksum, layout.table + 4 * block)
    except OSError as failed:
        raise files.unwritable(path, failed, WHAT) from failed


class DecodedImages(ArrayImages):
    """A set whose pixels are mapped from a file; a worker process maps it anew."""

    def __init__(
        self, path: Path, layout: Layout, labels: np.ndarray, description: Description
    ) -> None:
        self._path, self._layout = path, layout
        super().__init__(_mapped(path, layout), labels, description)
        # What does not stay in memory is read from the disk, and workers can wait for that.
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.in_memory = layout.size <= memory // 2

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "data": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.data = _mapped(self._path, self._layout)


def _mapped(path: Path, layout: Layout) -> torch.Tensor:
    if fault := wrong(path, layout):  # a map beyond the file's end would end the process
        raise InputError(f"{path}: {fault}; remove it and start again.")
    pixels = np.memmap(path, np.uint8, "r", _HEAD, (layout.count, *layout.shape))
    with warnings.catch_warnings():
        # torch warns that it could write into read-only memory. Nobody does; a copy-on-write map,
        # of which it would not warn, is refused by the system where it is larger than its memory.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(pixels)


def _allocate(number: int, size: int) -> None:
    """Have the disk set `size` bytes aside, where the file system can do that."""
    try:
        os.posix_fallocate(number, 0, size)
    except OSError as failed:
        if failed.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(number, size)


def _no_room(folder: Path, layout: Layout, why: str) -> InputError:
    return InputError(
        f"{folder}: {WHAT} of {layout.count} images takes {layout.size} bytes there ({why}); make "
        "room, name another folder by decoded_cache, or train without it."
    )
