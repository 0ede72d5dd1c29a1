"""`imagefolder:DIR[,SIZE]`: DIR/train/CLASS/*.jpg (png, ...) and DIR/test or DIR/val alike.

Which links are followed, and that none brings test images into training, is `split`'s rule. Ids are
in a fixed shuffled order (by the SHA-1 of the path below the split's folder), so that the first
`limit` samples are a fair draw and not all of one class.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np

from hvdfilter import files
from hvdfilter.data.encoded import EncodedImages, describe
from hvdfilter.data.folder import parse_folder
from hvdfilter.data.images import Description, Images
from hvdfilter.data.limits import IMAGE_BYTES, PIXELS
from hvdfilter.data.split import Split, check_apart, walk
from hvdfilter.errors import InputError

_USAGE = "imagefolder:DIR[,SIZE]"
_TRAINING, _TEST = ("train",), ("test", "val", "validation")


class _Files:
    """A `Source` of one file an image."""

    def __init__(self, folder: Path, paths: list[str]) -> None:
        self._folder, self._paths = str(folder), paths

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return files.read(Path(self.where(index)), IMAGE_BYTES, "an image")

    def where(self, index: int) -> str:
        """Its path."""
        return os.path.join(self._folder, self._paths[index])

    def identity(self, start: int, stop: int) -> str:
        """Path, size and time of each file."""
        return "\n".join(self._facts(index) for index in range(start, stop))

    def _facts(self, index: int) -> str:
        path = self.where(index)
        try:
            facts = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
        return f"{os.path.abspath(path)!r} {facts.st_size} {facts.st_mtime_ns}"


def open_imagefolder(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """Images uint8 [C, H, W]; of SIZE x SIZE (shorter side resized, centre cut) if given."""
    folder, size = parse_folder(location, _USAGE, math.isqrt(PIXELS))
    found = _walk(folder, train)
    if description is None:
        training = found if train else _walk(folder, True)
        paths, _ = _listed(training, training.classes)
        description = describe(_Files(training.folder, paths), len(paths), size, training.classes)
    paths, labels = _listed(found, description.class_names)
    source = _Files(found.folder, paths[:limit])
    return EncodedImages(source, labels[:limit], description, size is not None, source.identity)


def _walk(folder: Path, train: bool) -> Split:
    """One split, which shares no image with the others where there are links."""
    names, others = (_TRAINING, _TEST) if train else (_TEST, _TRAINING)
    place = next((folder / name for name in names if (folder / name).is_dir()), None)
    if place is None:
        raise InputError(
            f"{folder}: has no folder {' or '.join(names)}; arrange the images as "
            f"DIR/{names[0]}/CLASS/FILE."
        )
    found = walk(place)
    if found.linked:
        for other in others:
            if (folder / other).is_dir():
                check_apart(found, walk(folder / other))
    return found


def _listed(split: Split, class_names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Paths below the split's folder with their labels, in the fixed order; at least one."""
    label_of = {name: label for label, name in enumerate(class_names)}
    for name in split.classes:
        if name not in label_of:
            raise InputError(
                f"{split.folder / name}: is a class that the training folder does not have; "
                "remove it or add its training images."
            )
    if not split.files:
        raise InputError(
            f"{split.folder}: holds no images; arrange them as {split.folder}/CLASS/FILE.jpg."
        )
    ordered = sorted((_digest(path), path, label_of[name]) for path, name in split.files)
    return [path for _, path, _ in ordered], np.array([label for *_, label in ordered], np.int64)


def _digest(path: str) -> bytes:
    return hashlib.sha1(os.fsencode(path), usedforsecurity=False).digest()
