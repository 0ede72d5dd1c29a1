"""Sets of encoded images: decoded on access, or all at once into memory where they fit.

Sets whose pixels take less than `MEMORY_LIMIT` are decoded once and then lie in memory; larger
ones are decoded whenever a sample is asked for, so that a set of any size can be trained on.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

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


class EncodedImages(Images):
    """Images decoded on access; `resize` as in `decode`."""

    def __init__(
        self, source: Source, labels: np.ndarray, description: Description, resize: bool
    ) -> None:
        super().__init__(labels, description)
        self._source = source
        self._resize = resize

    def pixels(self, ids: np.ndarray) -> torch.Tensor:
        """Read and decode; InputError naming file and row of a damaged image."""
        out = np.empty((len(ids), *self.shape), np.uint8)
        for row, i in enumerate(ids.tolist()):
            data, where = self._source.read(i), self._source.where(i)
            out[row] = decode(data, where, self.shape, self._resize)
        return torch.from_numpy(out)


def open_encoded(
    source: Source, labels: np.ndarray, description: Description, resize: bool
) -> Images:
    """The set in memory if it is small enough, else decoded on access."""
    images = EncodedImages(source, labels, description, resize)
    if fits_in_memory(len(labels), description.shape):
        return ArrayImages(_decode(images, np.arange(len(labels))), labels, description)
    return images


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
    mean, std = statistics_of(_decode(samples, ids) for ids in in_blocks(spread(count), shape))
    return Description(shape, class_names, mean, std, augmentation)


def _decode(images: EncodedImages, ids: np.ndarray, block: int = 128) -> torch.Tensor:
    """`images.pixels(ids)` by threads; Pillow releases the interpreter's lock."""
    out = torch.empty((len(ids), *images.shape), dtype=torch.uint8)

    def fill(start: int) -> None:
        out[start : start + block] = images.pixels(ids[start : start + block])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        # Consumed in order: the first damaged sample is the one reported, on every rank alike.
        for _ in pool.map(fill, range(0, len(ids), block)):
            pass
    return out
