"""Encoded images at random access: a list in memory, or one file of them in a cache folder.

Parquet compresses rows in groups, so one sample costs a whole group to read. A set that does not
fit in memory is therefore copied once to `$HVDFILTER_DATA_CACHE` (else `$XDG_CACHE_HOME/hvdfilter`,
else `~/.cache/hvdfilter`; best a node-local disk), and all ranks of a node read it from there.

Layout: the images one after another, their count + 1 little-endian int64 offsets, the count as
int64, the eight bytes `hvdfblob`. A file under its final name is always complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hvdfilter import files
from hvdfilter.errors import InputError

_MAGIC = b"hvdfblob"
_WHAT = "the cache for a large data set"
REMEDY = "set HVDFILTER_DATA_CACHE to a folder with room for it"


class Rows:
    """Says which file and row sample i came from: (file, number of rows) in order."""

    def __init__(self, files: Iterable[tuple[str, int]]) -> None:
        self._names: list[str] = []
        self._starts: list[int] = []
        total = 0
        for name, rows in files:
            self._names.append(name)
            self._starts.append(total)
            total += rows

    def where(self, index: int) -> str:
        """File and row it came from."""
        file = bisect_right(self._starts, index) - 1
        return f"{self._names[file]}: row {index - self._starts[file]}"


class InMemory:
    """A list of encoded images."""

    def __init__(self, images: list[bytes], rows: Rows) -> None:
        self._images, self._rows = images, rows

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self._images[index]

    def where(self, index: int) -> str:
        """File and row it came from."""
        return self._rows.where(index)


class Stored:
    """A `Source` over a cache file; each process opens the file for itself."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self._path, self._rows = path, rows
        self._file: int | None = None
        size = files.size(path)
        count, magic = np.frombuffer(self._read(size - 16, 16), "<i8")
        start = size - 16 - 8 * (int(count) + 1)
        foreign = magic.tobytes() != _MAGIC or not 0 <= start < size - 16
        self._offsets = np.zeros(1, "<i8")
        if not foreign:
            self._offsets = np.frombuffer(self._read(start, size - 16 - start), "<i8")
            steps = np.diff(self._offsets)
            ends = int(self._offsets[0]), int(self._offsets[-1])
            foreign = ends != (0, start) or bool((steps < 0).any())
        if foreign:
            raise InputError(f"{path}: is no cache file of hvdfilter; delete it and start again.")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, index: int) -> bytes:
        """The encoded image."""
        start, stop = int(self._offsets[index]), int(self._offsets[index + 1])
        return self._read(start, stop - start)

    def where(self, index: int) -> str:
        """File and row it came from."""
        return self._rows.where(index)

    def _read(self, start: int, length: int) -> bytes:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY)
        data = os.pread(self._file, length, start) if start >= 0 else b""
        if len(data) != length:
            raise InputError(f"{self._path}: is shorter than it was; delete it and start again.")
        return data

    def __getstate__(self) -> dict[str, Any]:
        # A file descriptor means nothing in a worker process.
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def store(images: Iterable[bytes], identity: str, rows: Rows) -> Stored:
    """The cache file for `identity` (what the images were read from), written if it is missing."""
    folder = cache_folder()
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.blob"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "wb") as lock:
            # So that the ranks of a node do not each copy the set. Where the file system cannot
            # lock, each rank writes, and the last one wins.
            alone = locked(lock)
            if not path.exists():
                # Named by what may write at once: a draft that a killed job left is overwritten.
                writer = os.uname().nodename + ("" if alone else f".{os.getpid()}")
                _write(path, writer, images)
    except OSError as error:
        raise files.unwritable(folder, error, _WHAT, REMEDY) from error
    return Stored(path, rows)


def cache_folder() -> Path:
    """Where caches lie that need no option; it may not be there yet."""
    named = os.environ.get("HVDFILTER_DATA_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or Path(home, "hvdfilter")).expanduser()


def _write(path: Path, writer: str, images: Iterable[bytes]) -> None:
    offsets = [0]
    with files.replacing(path, _WHAT, REMEDY, writer) as file:
        for image in images:
            file.write(image)
            offsets.append(offsets[-1] + len(image))
        file.write(np.array(offsets, "<i8").tobytes())
        file.write(np.array([len(offsets) - 1], "<i8").tobytes() + _MAGIC)


def locked(file: BinaryIO, wait: bool = True) -> bool | None:
    """Keep others from locking an open file until it is closed, or this process ends.

    True once it is so; False on a file system that cannot lock; None, if this is not to wait, where
    another has locked it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True
