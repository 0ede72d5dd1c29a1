"""Where each sample of a WebDataset tar lies: found once by walking the tar, then kept in a file.

A tar can only be read from its beginning; with offset and size of every image at hand any sample is
one read, and one that is not asked for is none. The index is kept in the cache folder of `store`
under a name made from the tar's path, size and time; one that is damaged is made again. No image is
opened here, and what is not a plain tar of plain files is refused in one sentence.

Samples are as WebDataset has them (Aizman, Maltby, Breuel 2019, arXiv:2001.01858): members beside
each other whose names are alike up to the first dot of their last part are one sample.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hvdfilter import files
from hvdfilter.data.limits import IMAGE_BYTES, check_classes
from hvdfilter.errors import InputError

IMAGES = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "gif", "tif", "tiff", "pgm")
_LABELS = ("cls", "json")
_LABEL_BYTES = 1 << 20
_MAGIC = b"hvdftar1"
_END_BYTES = 1 << 26  # of zeros behind the last member; tar writes ten thousand
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZ": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# What Python's tarfile raises of headers that lie; its own errors are of all kinds.
_DAMAGE = (
    *(tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError),
    *(EOFError, IndexError, KeyError, TypeError, AttributeError),
)


@dataclass(frozen=True)
class TarIndex:
    """The samples of one tar, in its order.

    offsets, sizes, labels: int64 [n], of the images in bytes. names: of the images' members,
    joined; name i is `names[ends[i - 1] : ends[i]]`. stamp: the tar's size and time when it was
    walked.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    ends: np.ndarray
    names: bytes
    stamp: tuple[int, int]

    def name(self, sample: int) -> str:
        """The image's name in the tar."""
        start = int(self.ends[sample - 1]) if sample else 0
        return os.fsdecode(self.names[start : int(self.ends[sample])])

    def encode(self) -> bytes:
        """As bytes, with a digest."""
        head = np.array([len(self.offsets), *self.stamp], "<i8").tobytes()
        columns = (self.offsets, self.sizes, self.labels, self.ends)
        body = head + b"".join(column.astype("<i8").tobytes() for column in columns) + self.names
        return _MAGIC + hashlib.sha256(body).digest() + body

    @staticmethod
    def decode(data: bytes) -> TarIndex | None:
        """What `encode` wrote; None if these bytes are anything else."""
        body = data[40:]
        if data[:8] != _MAGIC or hashlib.sha256(body).digest() != data[8:40]:
            return None
        count, *stamp = np.frombuffer(body[:24], "<i8").tolist()
        columns = list(np.frombuffer(body[24 : 24 + 32 * count], "<i8").reshape(4, count))
        offsets, sizes, labels, ends = columns
        names = body[24 + 32 * count :]
        return TarIndex(offsets, sizes, labels, ends, names, (stamp[0], stamp[1]))


def stamp_of(file: BinaryIO) -> tuple[int, int]:
    """Size in bytes and time of change in ns of an open file."""
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def walk(path: Path) -> TarIndex:
    """The index of a tar; `InputError` naming it and the member for all that is not as it must be.

    A label is the whole number in the sample's `.cls`, or `label` or `cls` of its `.json`.
    """
    found, names, seen = [], [], set()
    with files.opened(path) as file:
        stamp = stamp_of(file)
        for key, members in _samples(path, file, stamp[0]):
            if key in seen:
                raise InputError(
                    f"{path}: has the sample {key!r} twice, or its files apart; make the tar again "
                    "with one key a sample and its files beside each other."
                )
            seen.add(key)
            image = _image(path, key, members)
            found.append((image.offset_data, image.size, _label(path, key, members, file)))
            names.append(os.fsencode(image.name))
    columns = np.array(found, np.int64).reshape(-1, 3).T
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return TarIndex(columns[0], columns[1], columns[2], ends, b"".join(names), stamp)


def _samples(
    path: Path, file: BinaryIO, size: int
) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """(key, members by ending) of each sample."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in _members(path, file, size):
        folder, _, last = member.name.rpartition("/")
        stem, dot, ending = last.partition(".")
        if not stem or not dot or (stem[:2] == "__" and not folder):
            continue  # a file that belongs to no sample
        mine, ending = f"{folder}/{stem}" if folder else stem, ending.lower()
        if mine != key:
            if members:
                yield key, members
            key, members = mine, {}
        if ending in members:
            raise InputError(f"{path}: has {member.name!r} twice; make the tar again.")
        members[ending] = member
    if members:
        yield key, members


def _members(path: Path, file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """The plain files of a tar, one after another, to an end that is really there."""
    head = file.read(8)
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise InputError(
            f"{path}: is compressed ({packed}), and samples can only be read one by one from a "
            "plain tar; unpack it (the images in it are compressed already)."
        )
    file.seek(0)
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                if member.size < 0 or member.offset_data < end:
                    raise tarfile.ReadError("a header points backwards")
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("it is cut")
                end = member.offset_data + -(-member.size // 512) * 512
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(
                        f"{path}: {member.name!r} is a link, a device or a file with holes, which "
                        "no sample can be; make the tar again with plain files."
                    )
                yield member
        # tarfile takes a header that it cannot read for the end of the tar.
        _check_end(file, end, size)
    except InputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: is no tar, or a damaged one ({reason}); fetch or make it again."
        ) from error


def _check_end(file: BinaryIO, at: int, size: int) -> None:
    """Raise ReadError unless the tar ends at `at` as tars do: in zeros, and nothing else."""
    if at + 512 > size:
        raise tarfile.ReadError("it is cut")
    if size - at > _END_BYTES:
        raise tarfile.ReadError(f"byte {at} is no header")
    file.seek(at)
    if file.read(size - at).strip(b"\0"):
        raise tarfile.ReadError(f"what follows byte {at} is no header")


def _image(path: Path, key: str, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo:
    images = [ending for ending in members if ending in IMAGES]
    if len(images) != 1:
        has = "no image" if not images else f"{len(images)} images ({', '.join(images)})"
        raise InputError(
            f"{path}: the sample {key!r} has {has} among .{', .'.join(members)}; give it one of "
            f".{', .'.join(IMAGES[:5])}."
        )
    image = members[images[0]]
    if image.size > IMAGE_BYTES:
        raise InputError(
            f"{path}: {image.name!r} has {image.size} bytes, and an image has at most "
            f"{IMAGE_BYTES}; replace it."
        )
    return image


def _label(path: Path, key: str, members: dict[str, tarfile.TarInfo], file: BinaryIO) -> int:
    ending = next((name for name in _LABELS if name in members), None)
    if ending is None:
        raise InputError(
            f"{path}: the sample {key!r} has no label among .{', .'.join(members)}; give it a .cls "
            "with its number, or a .json with `label`."
        )
    member = members[ending]
    if member.size > _LABEL_BYTES:
        raise InputError(
            f"{path}: {member.name!r} has {member.size} bytes, and a label at most "
            f"{_LABEL_BYTES}; replace it."
        )
    text = os.pread(file.fileno(), member.size, member.offset_data)
    try:
        label = _number(text) if ending == "cls" else _of_json(text)
    except (ValueError, RecursionError):
        raise InputError(
            f"{path}: {member.name!r} holds {text[:40]!r}, not the number of a class; correct it."
        ) from None
    if label < 0:
        raise InputError(f"{path}: {member.name!r} holds the label {label}; number from 0.")
    check_classes(f"{path}: {member.name!r}", label + 1)
    return label


def _number(text: bytes) -> int:
    digits = text.decode("ascii").strip()
    if not digits.removeprefix("-").isdigit() or len(digits) > 20:
        raise ValueError("no whole number")
    return int(digits)


def _of_json(text: bytes) -> int:
    fields = json.loads(text)
    value = fields.get("label", fields.get("cls")) if isinstance(fields, dict) else None
    if type(value) is not int:
        raise ValueError("no whole number")
    return value
