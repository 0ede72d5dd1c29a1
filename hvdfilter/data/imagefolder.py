"""`imagefolder:DIR[,SIZE]`: DIR/train/CLASS/*.jpg (png, ...) and DIR/test or DIR/val alike.

Ids are in a fixed shuffled order (by the SHA-1 of the path below the split's folder), so that the
first `limit` samples are a fair draw and not all of one class.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from hvdfilter.data.encoded import describe, open_encoded
from hvdfilter.data.folder import parse_folder, read_file
from hvdfilter.data.images import Description, Images
from hvdfilter.errors import InputError

_USAGE = "imagefolder:DIR[,SIZE]"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class _Files:
    """A `Source` of one file an image."""

    def __init__(self, folder: Path, paths: list[str]) -> None:
        self._folder, self._paths = str(folder), paths

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return read_file(Path(self.where(index)))

    def where(self, index: int) -> str:
        """Its path."""
        return os.path.join(self._folder, self._paths[index])


def open_imagefolder(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """Images uint8 [C, H, W]; of SIZE x SIZE (shorter side resized, centre cut) if given."""
    folder, size = parse_folder(location, _USAGE)
    if description is None:
        training = _split_folder(folder, True)
        names = _classes(training)
        paths, _ = _list(training, names)
        description = describe(_Files(training, paths), len(paths), size, names)
    split = _split_folder(folder, train)
    paths, labels = _list(split, description.class_names)
    source = _Files(split, paths[:limit])
    return open_encoded(source, labels[:limit], description, size is not None)


def _split_folder(folder: Path, train: bool) -> Path:
    names = ["train"] if train else ["test", "val", "validation"]
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(
        f"{folder}: has no folder {' or '.join(names)}; arrange the images as "
        f"DIR/{names[0]}/CLASS/FILE."
    )


def _classes(split: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in os.scandir(split) if entry.is_dir()))


def _list(split: Path, class_names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Paths below `split` with their labels, in the fixed order; at least one."""
    label_of = {name: label for label, name in enumerate(class_names)}
    found: list[tuple[bytes, str, int]] = []
    for name in _classes(split):
        if name not in label_of:
            raise InputError(
                f"{split / name}: is a class that the training folder does not have; "
                "remove it or add its training images."
            )
        for parent, _, files in os.walk(split / name):
            for file in files:
                if file.lower().endswith(_SUFFIXES):
                    path = Path(parent, file).relative_to(split).as_posix()
                    digest = hashlib.sha1(os.fsencode(path), usedforsecurity=False).digest()
                    found.append((digest, path, label_of[name]))
    if not found:
        raise InputError(f"{split}: holds no images; arrange them as {split}/CLASS/FILE.jpg.")
    found.sort()
    return [path for _, path, _ in found], np.array([label for _, _, label in found], np.int64)
