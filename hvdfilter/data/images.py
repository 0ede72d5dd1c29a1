"""What every reader returns: an indexed set of labelled uint8 images.

Sample `i` is the same image on every rank and in every run. The set never augments, normalises or
shuffles: that is `transform`'s and the sampler's work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from hvdfilter.data.reads import Reads
from hvdfilter.errors import InputError

STATISTICS_SAMPLES = 1024
"""How many training samples the channel statistics are taken from, where none are published."""

BLOCK_BYTES = 1 << 26
"""Bytes of pixels that are decoded together where the samples are looked at one after another."""

_COUNTED = 64  # samples of a channel copied together
_WIDENED = 1 << 22  # bytes counted together, each of which bincount makes eight of


@dataclass(frozen=True)
class Augmentation:
    """What `transform.augment` may do: shift by up to `pad` pixels, mirror left-right if `flip`."""

    pad: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Description:
    """What training and test split share; always taken from the training split.

    shape: (C, H, W); mean, std: one a channel, in units where white is 1.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation


class Images(Dataset[tuple[torch.Tensor, int]]):
    """A map-style data set of (uint8 [C, H, W], int) with all labels known up front.

    `batch(ids)` is the fast path: one uint8 [B, C, H, W] tensor and its int64 [B] labels; all other
    access goes through it. A reader subclasses it and writes `pixels`. `reads` counts the samples.
    """

    in_memory = False
    """Whether samples are at hand without reading or decoding (worker processes then only cost)."""

    def __init__(self, labels: np.ndarray, description: Description) -> None:
        self.labels: np.ndarray = np.ascontiguousarray(labels, dtype=np.int64)
        self.description = description
        self.reads = Reads()

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return len(self.description.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class; its number where the data set gives none."""
        return self.description.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return self.description.shape

    @property
    def mean(self) -> tuple[float, ...]:
        """The training split's mean, one a channel, white = 1."""
        return self.description.mean

    @property
    def std(self) -> tuple[float, ...]:
        """The training split's standard deviation, one a channel, white = 1."""
        return self.description.std

    @property
    def augmentation(self) -> Augmentation:
        """What may be done to a training image of this set without changing its class."""
        return self.description.augmentation

    def pixels(self, ids: np.ndarray) -> torch.Tensor:
        """uint8 [B, C, H, W] of int64 ids [B], all within range."""
        raise NotImplementedError

    def batch(
        self, ids: Sequence[int] | np.ndarray | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(uint8 [B, C, H, W], int64 [B]) of the samples `ids`; IndexError outside [0, N)."""
        index = np.require(ids, np.int64, "W")  # torch warns of read-only arrays
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            bad = index[(index < 0) | (index >= len(self))][0]
            raise IndexError(f"sample {bad} of a set of {len(self)}")
        self.reads.add(samples=len(index))
        return self.pixels(index), torch.from_numpy(self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        x, y = self.batch([index])
        return x[0], int(y[0])

    def __getitems__(self, ids: list[int]) -> list[tuple[torch.Tensor, int]]:
        # torch's DataLoader calls this and hands the *list* to its collate function.
        x, y = self.batch(ids)
        return list(zip(x, y.tolist(), strict=True))


class ArrayImages(Images):
    """Images held decoded in memory: `data` is uint8 [N, C, H, W]."""

    in_memory = True

    def __init__(self, data: torch.Tensor, labels: np.ndarray, description: Description) -> None:
        super().__init__(labels, description)
        self.data = data

    def pixels(self, ids: np.ndarray) -> torch.Tensor:
        """One gather."""
        return self.data.index_select(0, torch.from_numpy(ids))


def statistics(data: np.ndarray | torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 [N, C, H, W], in units where white is 1.

    Taken from exact counts of the 256 values, hence the same on every machine and rank.
    """
    return statistics_of([data])


def statistics_of(
    blocks: Iterable[np.ndarray | torch.Tensor],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As `statistics`, of samples that come in blocks of uint8 [n, C, H, W]; at least one."""
    counts = np.zeros((0, 256), np.int64)
    for data in blocks:
        array = np.asarray(data)
        if not counts.size:
            counts = np.zeros((array.shape[1], 256), np.int64)
        for channel in range(len(counts)):
            for start in range(0, len(array), _COUNTED):
                flat = array[start : start + _COUNTED, channel].ravel()
                for at in range(0, flat.size, _WIDENED):
                    counts[channel] += np.bincount(flat[at : at + _WIDENED], minlength=256)
    values = np.arange(256, dtype=np.float64) / 255
    means, stds = [], []
    for share in counts / counts.sum(axis=1, keepdims=True):
        mean = float(share @ values)
        variance = float(share @ (values - mean) ** 2)
        means.append(mean)
        # A constant channel carries nothing; a deviation of 1 leaves it at zero, not at NaN.
        stds.append(variance**0.5 if variance > 0 else 1.0)
    return tuple(means), tuple(stds)


def in_blocks(
    ids: np.ndarray, shape: tuple[int, int, int], most: int = BLOCK_BYTES
) -> Iterator[np.ndarray]:
    """`ids` in order, a few at a time: images of at most `most` bytes together, at least one."""
    step = max(1, most // math.prod(shape))
    return (ids[start : start + step] for start in range(0, len(ids), step))


def spread(count: int, samples: int = STATISTICS_SAMPLES) -> np.ndarray:
    """Up to `samples` indices evenly spread over [0, count): the subset that statistics use."""
    samples = min(count, samples)
    return np.arange(samples, dtype=np.int64) * count // max(samples, 1)


def default_pad(height: int, width: int) -> int:
    """The usual crop padding: 4 pixels from 32x32 on, 2 from 16x16 (MNIST), 1 below (digits)."""
    shorter = min(height, width)
    return 4 if shorter >= 32 else 2 if shorter >= 16 else 1


def check_labels(labels: np.ndarray, num_classes: int, source: str, first_row: int = 0) -> None:
    """Raise InputError naming file, row and label if a label is outside [0, num_classes)."""
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        row = int(bad[0])
        raise InputError(
            f"{source}: row {first_row + row} has label {int(labels[row])}, "
            f"outside [0, {num_classes}); correct the label or the number of classes."
        )
