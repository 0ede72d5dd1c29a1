"""`idx:DIR[,CLASSES]`: the idx files of MNIST, Fashion-MNIST and their kin, gzipped or not.

The format is LeCun's (yann.lecun.com/exdb/mnist): big-endian magic number, dimensions, bytes.
10 classes unless CLASSES says otherwise. Never flipped in augmentation: most such sets are writing.
A file has exactly the bytes that its header promises; no more is read of a gzipped one, and one
that promises more than `limits.check_unpacked` allows is refused before it is unpacked.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvdfilter import files
from hvdfilter.data.folder import find_file, parse_folder
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
from hvdfilter.data.limits import CLASSES, check_unpacked
from hvdfilter.errors import InputError

_UNSIGNED_BYTES = 0x08  # the third byte of the magic number; the fourth counts the dimensions


def open_idx(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """Images uint8 [1, H, W] in the files' order."""
    folder, classes = parse_folder(location, "idx:DIR[,CLASSES]", CLASSES)
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
    start = 4 + 4 * dimensions
    with files.opened(path) as stored:
        size = os.fstat(stored.fileno()).st_size
        zipped = path.suffix == ".gz"
        try:
            file: Any = gzip.GzipFile(fileobj=stored) if zipped else stored
            head = file.read(start)
            if len(head) < start or head[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
                raise InputError(
                    f"{path}: does not begin as an idx file of bytes with {dimensions} "
                    "dimension(s); fetch it again."
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            promised = math.prod(shape)
            if zipped:
                check_unpacked(path, size, start + promised)
            elif size != start + promised:
                raise _wrong_length(path, str(size), start + promised)
            data = file.read(promised)
            more = file.read(1)  # also has gzip compare its checksum
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{path}: is truncated or no gzip file ({error}); fetch it again."
            ) from error
    if len(data) < promised or more:
        length = f"{start + len(data) + len(more)}{' or more' * bool(more)}"
        raise _wrong_length(path, length, start + promised)
    # Zero times 2^32 is nothing, yet no shape that NumPy takes.
    return np.frombuffer(data, np.uint8).reshape(shape if promised else (0,) * dimensions)


def _wrong_length(path: Path, length: str, expected: int) -> InputError:
    return InputError(
        f"{path}: has {length} bytes where its header promises {expected}, "
        "so it is truncated or damaged; fetch it again."
    )
