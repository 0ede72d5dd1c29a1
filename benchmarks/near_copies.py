"""Digits, half of them near copies of eight images: `--data benchmarks.near_copies:open_set`."""

from __future__ import annotations

import numpy as np
import torch

from hvdfilter.data import Images
from hvdfilter.data.digits import open_digits
from hvdfilter.data.images import ArrayImages, Description

KINDS = 8


def open_set(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """The digits' own split; every other training image is one of eight, plus noise."""
    images = open_digits("", train, limit, description)
    assert isinstance(images, ArrayImages)
    if not train:
        return images
    half = len(images) // 2
    kinds = np.arange(half) % KINDS
    noise = np.random.RandomState(0).randint(-5, 6, (half, 1, 8, 8))  # of 255 grey levels
    data, labels = images.data.numpy().copy(), images.labels.copy()
    data[1 : 2 * half : 2] = np.clip(data[2 * kinds].astype(int) + noise, 0, 255)
    labels[1 : 2 * half : 2] = labels[2 * kinds]
    return ArrayImages(torch.from_numpy(data), labels, images.description)
