"""Small images, and what the sets of them share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hvdfilter.agreement import SoloCollective
from hvdfilter.data import open_dataset
from hvdfilter.world import World

COUNT = 20
ALONE = World(0, 1, 0, torch.device("cpu"), SoloCollective())


def random_pixels(shape: tuple[int, ...]) -> np.ndarray:
    """uint8, the same ones every time."""
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def encoded(array: np.ndarray, kind: str) -> bytes:
    """A picture in one of Pillow's formats."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def all_of(spec: str) -> Callable[[Path], object]:
    """What reads every training sample of the set that `spec`, with a folder in it, names."""

    def read(folder: Path) -> object:
        images = open_dataset(spec.format(folder), train=True)
        return images.batch(range(len(images)))

    return read
