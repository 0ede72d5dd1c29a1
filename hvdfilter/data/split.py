"""The files of an image folder's split, and where its links lead. It opens none of them.

A split's folder, its class folders and its files may be links, as they are where one copy of a set
serves many; folders below a class may not, for they can lead in circles. What is read at the end is
a regular file, never a pipe or a device. And no link brings images of one split into the other:
where either has links, no folder or file of the one may lie in the other, followed to its place.
(Copies and hard links are files of their own, and not compared.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hvdfilter.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass
class Split:
    """What lies below one split's folder.

    files: (path below the folder, class) in no order. folders, links: the real places of the
    folder and of linked class folders, and of linked files, each with the path that led there.
    """

    folder: Path
    classes: tuple[str, ...] = ()
    files: list[tuple[str, str]] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def linked(self) -> bool:
        """Whether anything of it may lie elsewhere."""
        return bool(self.links) or len(self.folders) > 1 or self.folder.is_symlink()


def walk(folder: Path) -> Split:
    """The classes, sorted, and the image files of a split's folder; InputError for a bad link."""
    split = Split(folder, folders={os.path.realpath(folder): str(folder)})
    names = []
    for entry in _entries(str(folder)):
        if entry.is_symlink():
            if not os.path.exists(entry.path):
                raise InputError(f"{entry.path}: is a link that leads nowhere; mend or remove it.")
            if entry.is_dir():
                split.folders[os.path.realpath(entry.path)] = entry.path
        if entry.is_dir():
            names.append(entry.name)
            _add(split, entry.path, entry.name, entry.name)
    split.classes = tuple(sorted(names))
    return split


def check_apart(one: Split, other: Split) -> None:
    """InputError naming the path by which images of one split are in the other."""
    for mine, its in ((one, other), (other, one)):
        for place, path in (*mine.folders.items(), *mine.links.items()):
            inside = its.links.get(place) or next(
                (its.folders[above] for above in _above(place) if above in its.folders), None
            )
            if inside is not None:
                raise InputError(
                    f"{path}: leads to {place}, which belongs to {inside} too; training and test "
                    "images must be apart, remove one of the links."
                )


def _add(split: Split, folder: str, below: str, name: str) -> None:
    for entry in _entries(folder):
        path = f"{below}/{entry.name}"
        if entry.is_dir():
            if entry.is_symlink():
                raise InputError(
                    f"{entry.path}: is a link to a folder below a class, which is not followed; "
                    "link the class's folder or single files."
                )
            _add(split, entry.path, path, name)
        elif entry.name.lower().endswith(_SUFFIXES):
            if not entry.is_file():
                raise InputError(f"{entry.path}: is no regular file; remove or replace it.")
            if entry.is_symlink():
                split.links[_place(entry.path)] = entry.path
            split.files.append((path, name))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error}).") from error


def _place(link: str) -> str:
    """`os.path.realpath` of a link, at three calls a file: a set may have millions."""
    target = os.path.join(os.path.dirname(link), os.readlink(link))
    folder, name = os.path.split(target)
    place = os.path.join(_real_folder(folder), name)
    return os.path.realpath(place) if os.path.islink(place) else place


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _above(place: str) -> list[str]:
    """A path and all folders above it."""
    return [place, *map(str, Path(place).parents)]
