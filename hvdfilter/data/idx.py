"""`idx:DIR[,CLASSES]`: the idx files of MNIST, Fashion-MNIST and their kin, gzipped or not.

The format is LeCun's (yann.lecun.com/exdb/mnist): big-endian magic number, dimensions, bytes.
10 classes unless CLASSES says otherwise. Never flipped in augmentation: most such sets are writing.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from hvdfilter.data.folder import find_file, parse_folder, read_file
from hvdfilter.data.images import (
    ArrayImages,
    Augmentation,
    Description,
    Images,
    check_labels,
    default_pad,
    spread,
    statistics,
)
from hvdfilter.errors import InputError

_UNSIGNED_BYTES = 0x08  # the third byte of the magic number; the fourth counts the dimensions


def open_idx(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """Images uint8 [1, H, W] in the files' order."""
    folder, classes = parse_folder(location, "idx:DIR[,CLASSES]")
    num_classes = classes or 10
    pixels, labels = _read_split(folder, train, num_classes)
    if description is None:
        training = pixels if train else _read_split(folder, True, num_classes)[0]
        mean, std = statistics(training[spread(len(training))])
        height, width = training.shape[2:]
        names = tuple(str(label) for label in range(num_classes))
        augmentation = Augmentation(pad=default_pad(height, width), flip=False)
        description = Description((1, height, width), names, mean, std, augmentation)
    if pixels.shape[1:] != description.shape:
        raise InputError(
            f"{folder}: its test images are {pixels.shape[2]}x{pixels.shape[3]}, its training "
            f"images {description.shape[1]}x{description.shape[2]}; keep one set in a folder."
        )
    # A copy, for an array over a file's bytes is read-only and torch wants to write.
    return ArrayImages(torch.from_numpy(pixels[:limit].copy()), labels[:limit], description)


def _read_split(folder: Path, train: bool, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [N, 1, H, W], int64 [N]), checked against each other."""
    prefixes = ["train"] if train else ["t10k", "test"]
    images_path = find_file([folder], _spellings(prefixes, "images", 3))
    labels_path = find_file([folder], _spellings(prefixes, "labels", 1))
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1).astype(np.int64)
    if len(images) != len(labels):
        raise InputError(
            f"{labels_path}: has {len(labels)} labels for the {len(images)} images of "
            f"{images_path.name}; fetch both again."
        )
    if images.size == 0:
        raise InputError(f"{images_path}: holds no images; fetch it again.")
    check_labels(labels, num_classes, str(labels_path))
    return images[:, None], labels


def _spellings(prefixes: list[str], what: str, dimensions: int) -> list[str]:
    """The names in use: with a dash or a dot before `idx`, gzipped or not."""
    return [
        f"{prefix}-{what}{mark}idx{dimensions}-ubyte{suffix}"
        for prefix in prefixes
        for mark in "-."
        for suffix in ("", ".gz")
    ]


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of one idx file, which must have exactly the bytes its header promises."""
    data = read_file(path)
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{path}: is truncated or no gzip file ({error}); fetch it again."
            ) from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
        raise InputError(
            f"{path}: does not begin as an idx file of bytes with {dimensions} dimension(s); "
            "fetch it again."
        )
    shape = np.frombuffer(data, ">u4", dimensions, offset=4).astype(int)
    expected = start + int(np.prod(shape))
    if len(data) != expected:
        raise InputError(
            f"{path}: has {len(data)} bytes where its header promises {expected}, "
            "so it is truncated or damaged; fetch it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
