"""`cifar10:DIR`: CIFAR-10 as published, in the binary layout or as python batches.

DIR holds the batches or the unpacked archive's folder. All five training batches must be there, and
each has the 10,000 images of the published files: a batch cut at an image's end is noticed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hvdfilter import files
from hvdfilter.data.folder import find_file, parse_folder
from hvdfilter.data.images import ArrayImages, Augmentation, Description, Images, check_labels
from hvdfilter.data.unpickle import load_batch
from hvdfilter.errors import InputError

_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORD = 1 + 3 * 32 * 32  # the binary layout: a label, then red, green and blue planes
_IMAGES = 10_000  # of every batch
# Toronto's python batches have 31.0 MB, of which the names of the images' files take 0.3 MB.
_MOST_BYTES = 1 << 26
# The statistics of the 50,000 training images, as everyone publishes them.
_DESCRIPTION = Description(
    shape=(3, 32, 32),
    class_names=_NAMES,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    augmentation=Augmentation(pad=4, flip=True),
)


def open_cifar10(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """50,000 training or 10,000 test images, uint8 [3, 32, 32], in the files' order."""
    folder, number = parse_folder(location, "cifar10:DIR")
    if number is not None:
        raise InputError(f"cifar10:{location} has a number after its folder: write cifar10:DIR.")
    folders = [folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"]
    stems = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    paths = [find_file(folders, [f"{stem}.bin", stem]) for stem in stems]
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for path in paths:
        pixels, labels = _read(path)
        check_labels(labels, len(_NAMES), str(path))
        parts.append((pixels, labels))
        if limit is not None and sum(len(part[1]) for part in parts) >= limit:
            break
    data = np.concatenate([pixels for pixels, _ in parts])[:limit].reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts])[:limit]
    return ArrayImages(torch.from_numpy(data), labels, description or _DESCRIPTION)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [10000, 3072], int64 [10000]) of one file of either layout."""
    data = files.read(path, _MOST_BYTES, "a CIFAR-10 batch")
    if path.suffix == ".bin":
        if len(data) != _IMAGES * _RECORD:
            raise InputError(
                f"{path}: has {len(data)} bytes, not {_IMAGES} records of {_RECORD} bytes, "
                "so it is truncated or not CIFAR-10; fetch it again."
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
        return records[:, 1:], records[:, 0].astype(np.int64)
    pixels, labels = load_batch(data, path)
    if not len(pixels) == len(labels) == _IMAGES:
        raise InputError(
            f"{path}: has {len(pixels)} images and {len(labels)} labels, not {_IMAGES} of each; "
            "fetch it again."
        )
    return pixels, labels
