"""`webdataset:DIR[,SIZE]` or `webdataset:PATTERN[,SIZE]`: tars of images with their labels.

A sample is an image (.jpg, .png, ...) and a .cls or .json beside it in a tar; see `tarnames` for
which tars are read and `tarindex` for what is in them. Ids follow the sorted tars and the order in
each, so the first samples are a fair draw only where the tars were shuffled as they were made. A
sample is read by its place in the tar, on access: what nobody asks for is never read.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hvdfilter import files
from hvdfilter.data.encoded import EncodedImages, describe
from hvdfilter.data.folder import parse_folder, parse_number
from hvdfilter.data.images import Description, Images
from hvdfilter.data.limits import PIXELS
from hvdfilter.data.store import REMEDY, cache_folder, locked
from hvdfilter.data.tarindex import TarIndex, stamp_of, walk
from hvdfilter.data.tarnames import is_pattern, tars_in, tars_of
from hvdfilter.errors import InputError

USAGE = "webdataset:DIR[,SIZE] or webdataset:DIR/NAME-{000..099}.tar[,SIZE]"
_OPEN = 64  # tars that a process holds open; many systems allow a thousand files
_WHAT = "the index of a tar"


class _Descriptor:
    """An open tar, closed once nobody holds it: a thread may read what another has let go."""

    def __init__(self, path: Path, stamp: tuple[int, int]) -> None:
        self.number = -1
        with files.opened(path) as file:
            if stamp_of(file) != stamp:
                raise InputError(f"{path}: has changed since it was indexed; start again.")
            self.number = os.dup(file.fileno())

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class _Tars:
    """A `Source` of images in tars, each read by its place."""

    def __init__(self, paths: list[Path], indexes: list[TarIndex]) -> None:
        self._paths = [os.path.abspath(path) for path in paths]
        self._indexes = indexes
        self._starts = np.cumsum([0, *(len(index.labels) for index in indexes)])
        self._init_files()

    def read(self, index: int) -> bytes:
        """The encoded image; `InputError` if its tar is no longer the one that was indexed."""
        number, sample = self._place(index)
        tar = self._indexes[number]
        length = int(tar.sizes[sample])
        file = self._file(number)
        try:
            data = os.pread(file.number, length, int(tar.offsets[sample]))
        except OSError as error:
            raise InputError(
                f"{self._paths[number]}: cannot be read ({error.strerror or error})."
            ) from error
        if len(data) != length:
            raise InputError(f"{self._paths[number]}: is shorter than it was; start again.")
        return data

    def where(self, index: int) -> str:
        """Tar and name in it."""
        number, sample = self._place(index)
        return f"{self._paths[number]}: {self._indexes[number].name(sample)}"

    def identity(self, start: int, stop: int) -> str:
        """Path, size and time of each tar, and which of its samples."""
        first, last = self._place(start)[0], self._place(stop - 1)[0]
        facts = [(self._paths[n], *self._indexes[n].stamp) for n in range(first, last + 1)]
        return repr([facts, start - int(self._starts[first]), stop - start])

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return number, index - int(self._starts[number])

    def _file(self, number: int) -> _Descriptor:
        with self._lock:
            if number not in self._files:
                path, stamp = Path(self._paths[number]), self._indexes[number].stamp
                self._files[number] = _Descriptor(path, stamp)
                if len(self._files) > _OPEN:
                    self._files.popitem(last=False)
            self._files.move_to_end(number)
            return self._files[number]

    def _init_files(self) -> None:
        self._files: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # An open file means nothing in a worker process.
        return {name: value for name, value in self.__dict__.items() if name not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._init_files()


_OWN = ("_files", "_lock")


def open_webdataset(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """Images uint8 [C, H, W], decoded on access; SIZE as for imagefolder.

    Classes are numbered from 0 to the largest label of the training tars.
    """
    if is_pattern(location):
        place, size = parse_number(location, USAGE, math.isqrt(PIXELS))
        tars: Callable[[bool], list[Path]] = partial(tars_of, place)
    else:
        folder, size = parse_folder(location, USAGE, math.isqrt(PIXELS))
        tars = partial(tars_in, folder)
    paths = tars(train)
    indexes = _indexes(paths)
    if description is None:
        training = paths if train else tars(True)
        known = indexes if train else _indexes(training)
        classes = 1 + max(int(index.labels.max(initial=0)) for index in known)
        count = sum(len(index.labels) for index in known)
        names = tuple(str(label) for label in range(classes))
        description = describe(_Tars(training, known), count, size, names)
    _check_labels(paths, indexes, len(description.class_names))
    labels = np.concatenate([index.labels for index in indexes])[:limit]
    source = _Tars(paths, indexes)
    return EncodedImages(source, labels, description, size is not None, source.identity)


def _check_labels(paths: list[Path], indexes: list[TarIndex], classes: int) -> None:
    for path, index in zip(paths, indexes, strict=True):
        bad = np.flatnonzero(index.labels >= classes)
        if bad.size:
            sample = int(bad[0])
            raise InputError(
                f"{path}: {index.name(sample)} has label {int(index.labels[sample])}, which none "
                f"of the training tars has ({classes} classes); correct the label."
            )


def _indexes(paths: list[Path]) -> list[TarIndex]:
    """The index of each tar, at least one sample in all; ranks that come at once share the work."""
    found = {path: _indexed(path, wait=False) for path in paths}
    indexes = [found[path] or _indexed(path) for path in paths]
    if not any(len(index.labels) for index in indexes if index is not None):
        raise InputError(f"{paths[0]}: holds no samples; fetch the data set again.")
    return [index for index in indexes if index is not None]


def _indexed(path: Path, wait: bool = True) -> TarIndex | None:
    """The kept index, or one made now; None, if not to wait, where another process makes it."""
    name = hashlib.sha256(os.path.realpath(path).encode(errors="surrogateescape")).hexdigest()[:32]
    kept = cache_folder() / f"{name}.tarindex"
    with files.opened(path) as tar:
        if (index := _kept(kept, stamp_of(tar))) is not None:
            return index
        # The tar itself is locked: its index may lie in the caches of many nodes.
        if locked(tar, wait) is None:
            return None
        if (index := _kept(kept, stamp_of(tar))) is not None:
            return index
        index = walk(path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(kept.parent, error, _WHAT, REMEDY) from error
    with files.replacing(kept, _WHAT, REMEDY, f"{os.uname().nodename}.{os.getpid()}") as file:
        file.write(index.encode())
    return index


def _kept(path: Path, stamp: tuple[int, int]) -> TarIndex | None:
    """The index in a file of ours, if it is there, whole, and of the tar as it is now."""
    if not path.is_file():
        return None
    # An index is shorter than its tar, which holds all that is in it and more.
    index = TarIndex.decode(files.read(path, stamp[0] + (1 << 16), _WHAT))
    return index if index is not None and index.stamp == stamp else None
