"""`synthetic:N,C,H,W,CLASSES`: learnable images made from their ids, on any rank, holding none.

A sample is its class's block pattern, mixed with another class's and covered by noise; how much
of either is drawn per sample, so that some are easy and some are hard. All arithmetic is integer:
the same bytes on every machine. It is no model of real images: for benchmarks and tests only.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from hvdfilter.data.counter import hash_numpy, key
from hvdfilter.data.images import (
    BLOCK_BYTES,
    Augmentation,
    Description,
    Images,
    default_pad,
    in_blocks,
    spread,
    statistics_of,
)
from hvdfilter.errors import InputError

_USAGE = "synthetic:N,C,H,W,CLASSES with five whole numbers of at least 1"
# What these take in memory on every rank: 8 bytes a sample, 4 to 40 a value, 64 a pattern.
_MOST_SAMPLES, _MOST_VALUES, _MOST_PATTERNS = 1 << 30, 1 << 24, 1 << 20
_LABELLED = 1 << 22  # samples labelled at a time
_GRID = 4  # a class pattern is a 4x4 grid of grey levels a channel
_BANK = 1 << 16  # how many different windows the bank of noise offers
_SEED = 20200701
_TRAIN, _TEST, _PATTERN, _NOISE = 1, 2, 3, 4


class SyntheticImages(Images):
    """Sample i from hashes of i; memory is one pattern a class, one bank of noise, the labels."""

    # A batch is a few vector operations, cheaper than sending it between processes.
    in_memory = True

    def __init__(
        self, num_samples: int, split: int, num_classes: int, description: Description
    ) -> None:
        self._key = key(_SEED, split)
        labels = np.empty(num_samples, np.int64)
        for start in range(0, num_samples, _LABELLED):
            ids = np.arange(start, min(start + _LABELLED, num_samples))
            labels[start : start + _LABELLED] = _labels(ids, self._key, num_classes)
        super().__init__(labels, description)
        channels, height, width = description.shape
        self._patterns = _patterns(num_classes, channels)
        self._rows = np.arange(height) * _GRID // height
        self._columns = np.arange(width) * _GRID // width
        self._bank = _noise_bank(math.prod(description.shape))

    def pixels(self, ids: np.ndarray) -> torch.Tensor:
        """Made on the spot from hashes of the ids."""
        draws = hash_numpy(ids, key(self._key, 1))
        first = (draws & np.uint64(_BANK - 1)).astype(np.int64)
        second = ((draws >> np.uint64(16)) & np.uint64(_BANK - 1)).astype(np.int64)
        # Share of the other class in 1/256: at most 0.45, so that the label stays right.
        share = ((draws >> np.uint64(32)) % np.uint64(116)).astype(np.int32)
        # Noise amplitude in 1/256 of the bank's spread (about 74 grey levels): 0.1 to 1.35.
        amplitude = 26 + ((draws >> np.uint64(40)) % np.uint64(320)).astype(np.int32)
        labels = _labels(ids, self._key, self.num_classes)
        step = (draws >> np.uint64(50)) % np.uint64(max(self.num_classes - 1, 1))
        other = (labels + 1 + step.astype(np.int64)) % self.num_classes
        windows = np.lib.stride_tricks.sliding_window_view(self._bank, math.prod(self.shape))
        noise = (windows[first] + windows[second]) * amplitude[:, None]
        share = share[:, None, None, None]
        blocks = self._patterns[labels] * (256 - share) + self._patterns[other] * share
        image = blocks[:, :, self._rows[:, None], self._columns]
        image += noise.reshape(image.shape)
        return torch.from_numpy(np.clip(image >> 8, 0, 255).astype(np.uint8))


def open_synthetic(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """N training or max(1, N // 5) test samples, uint8 [C, H, W].

    N is at most 2^30, C x H x W at most 2^24, C x CLASSES at most 2^20: InputError beyond.
    """
    parts = location.split(",")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 5 or min(numbers) < 1:
        raise InputError(f"synthetic:{location:.80} is not understood: write {_USAGE}.")
    num_samples, channels, height, width, num_classes = numbers
    for value, most, what in (
        (num_samples, _MOST_SAMPLES, "N"),
        (channels * height * width, _MOST_VALUES, "C x H x W"),
        (channels * num_classes, _MOST_PATTERNS, "C x CLASSES"),
    ):
        if value > most:
            raise InputError(
                f"synthetic:{location:.80} is too large: {what} may be at most {most}; lower it."
            )
    if description is None:
        shape = (channels, height, width)
        names = tuple(str(label) for label in range(num_classes))
        # The patterns are not symmetric: mirrored, they would be those of no class.
        draft = Description(shape, names, (), (), Augmentation(default_pad(height, width), False))
        sample = SyntheticImages(0, _TRAIN, num_classes, draft)  # pixels need no list of labels
        blocks = in_blocks(spread(num_samples, 256), shape, BLOCK_BYTES // 16)
        mean, std = statistics_of(sample.pixels(ids) for ids in blocks)
        description = Description(shape, names, mean, std, draft.augmentation)
    count = num_samples if train else max(1, num_samples // 5)
    count = count if limit is None else min(count, limit)
    return SyntheticImages(count, _TRAIN if train else _TEST, num_classes, description)


def _labels(ids: np.ndarray, key_of: int, num_classes: int) -> np.ndarray:
    labels: np.ndarray = hash_numpy(ids, key_of) % np.uint64(num_classes)
    return labels.astype(np.int64)


def _patterns(num_classes: int, channels: int) -> np.ndarray:
    """int32 [num_classes, channels, _GRID, _GRID]: grey levels from 48 to 207, one a block."""
    cells = np.arange(num_classes * channels * _GRID * _GRID)
    levels = 48 + hash_numpy(cells, key(_SEED, _PATTERN)) % np.uint64(160)
    return levels.astype(np.int32).reshape(num_classes, channels, _GRID, _GRID)


def _noise_bank(size: int) -> np.ndarray:
    """int32 [_BANK + size - 1]: noise of mean 0 and spread 74 / sqrt(2) grey levels.

    A sum of four random bytes, so nearly Gaussian.
    """
    draws = hash_numpy(np.arange(_BANK + size - 1), key(_SEED, _NOISE))
    total = sum((draws >> np.uint64(8 * byte)) & np.uint64(255) for byte in range(4))
    # The sum has variance 4 * (256^2 - 1) / 12 = 147.8^2; two windows are added per sample.
    return ((np.asarray(total).astype(np.int32) - 510) * 91) >> 8
