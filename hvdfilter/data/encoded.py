"""Sets of encoded images: decoded on access, or all at once into memory where they fit.

Sets whose pixels take at most `MEMORY_LIMIT` are decoded once and then lie in memory; larger ones
are decoded whenever a sample is asked for, so that a set of any size can be trained on. A third
way, a file of all pixels that a node's ranks share, is `decoded`'s.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from hvdfilter.data.codec import decode, header
from hvdfilter.data.images import (
    ArrayImages,
    Augmentation,
    Description,
    Images,
    default_pad,
    in_blocks,
    spread,
    statistics_of,
)

MEMORY_LIMIT = 1 << 30
"""Bytes of decoded pixels up to which a set is held decoded, on every rank."""

_PROBES = 32  # images looked at to learn whether a set has colour


class Source(Protocol):
    """Encoded images by number; picklable, for the workers of a DataLoader."""

    def read(self, index: int) -> bytes:
        """The encoded image."""
        ...

    def where(self, index: int) -> str:
        """File and row it came from, for messages."""
        ...


Identity = Callable[[int, int], str]
"""(start, stop) -> text that changes whenever the bytes of these samples may have; reads none."""


class Later:
    """A `Source` that is opened when it is first read: one whose pixels are at hand never is."""

    def __init__(self, make: Callable[[], Source]) -> None:
        self._make = make
        self._source: Source | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self.opened().read(index)

    def where(self, index: int) -> str:
        """File and row it came from."""
        return self.opened().where(index)

    def opened(self) -> Source:
        """The source itself."""
        with self._lock:
            if self._source is None:
                self._source = self._make()
            return self._source

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker reads, and only that: it needs the source itself and not how it is made.
        return _itself, (self.opened(),)


def _itself(source: Source) -> Source:
    return source


class EncodedImages(Images):
    """Images decoded on access; `resize` as in `decode`.

    identity: None where the samples cannot be told from others without reading them.
    """

    def __init__(
        self,
        source: Source,
        labels: np.ndarray,
        description: Description,
        resize: bool,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(labels, description)
        self.source, self.resize, self.identity = source, resize, identity

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "identity": None}  # which a worker never asks for

    def pixels(self, ids: np.ndarray) -> torch.Tensor:
        """Read and decode; InputError naming file and row of a damaged image."""
        out = np.empty((len(ids), *self.shape), np.uint8)
        for row, i in enumerate(ids.tolist()):
            data, where = self.source.read(i), self.source.where(i)
            self.reads.add(decoded=1)
            out[row] = decode(data, where, self.shape, self.resize)
        return torch.from_numpy(out)

    def decoded(self, ids: np.ndarray, block: int = 128) -> torch.Tensor:
        """`pixels(ids)`, decoded by threads, `block` images each; Pillow frees Python's lock."""
        out = torch.empty((len(ids), *self.shape), dtype=torch.uint8)

        def fill(start: int) -> None:
            out[start : start + block] = self.pixels(ids[start : start + block])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            # In order: the first damaged sample is the one reported, on every rank alike.
            for _ in pool.map(fill, range(0, len(ids), block)):
                pass
        return out

    def ready(self) -> Images:
        """The set in memory if it is small enough, else this one, its source open."""
        if fits_in_memory(len(self), self.shape):
            whole = self.decoded(np.arange(len(self)))
            return ArrayImages(whole, self.labels, self.description)
        # A source that is copied before it is read is copied here, where the ranks expect to wait.
        self.source.read(0)
        return self


def fits_in_memory(count: int, shape: tuple[int, int, int]) -> bool:
    """Whether `count` decoded images of this shape take at most `MEMORY_LIMIT` bytes."""
    return count * math.prod(shape) <= MEMORY_LIMIT


def describe(
    source: Source, count: int, size: int | None, class_names: tuple[str, ...]
) -> Description:
    """Shape and statistics of natural images, from `count` training samples of the source.

    One channel if all of the images looked at are grey, else three. Height and width are `size`,
    or those of the first image.
    """
    heads = [header(source.read(i), source.where(i)) for i in spread(count, _PROBES).tolist()]
    channels = 1 if all(grey for grey, _, _ in heads) else 3
    _, height, width = heads[0]
    shape = (channels, size or height, size or width)
    augmentation = Augmentation(default_pad(*shape[1:]), flip=True)
    draft = Description(shape, class_names, (), (), augmentation)
    samples = EncodedImages(source, np.zeros(count, np.int64), draft, size is not None)
    # In blocks: a thousand photographs as they are would take tens of gigabytes.
    mean, std = statistics_of(samples.decoded(ids) for ids in in_blocks(spread(count), shape))
    return Description(shape, class_names, mean, std, augmentation)
