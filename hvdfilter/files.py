"""Files: opened only where they are regular, written whole or not at all, in one sentence if not.

A pipe or a device under a data file's name is refused before it is read, for it would never end. A
file is written under another name, forced to the disk and renamed, so that a reader, a kill or a
full disk meets the old file or the whole new one. Nothing here knows what a file holds.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hvdfilter.errors import InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def opened(path: Path) -> BinaryIO:
    """The regular file `path`, or the one it links to, open for reading.

    Raises `InputError` that names it where it is something else, missing, or cannot be read.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for whoever may write into it.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from error
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise InputError(f"{path}: is {kind}, not a regular file; remove or replace it.")
    return os.fdopen(number, "rb")


def size(path: Path) -> int:
    """Bytes of the regular file `path`; raises as `opened` does."""
    with opened(path) as file:
        return os.fstat(file.fileno()).st_size


def read(path: Path, most: int, what: str) -> bytes:
    """All of a regular file of at most `most` bytes, looked at before any is read.

    what: the files that are never longer, for the sentence: "an image". Raises as `opened` does.
    """
    with opened(path) as file:
        length = os.fstat(file.fileno()).st_size
        if length > most:
            raise InputError(
                f"{path}: has {length} bytes, and {what} has at most {most}; replace it."
            )
        try:
            return file.read(length)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def write(path: Path, data: bytes | str, what: str = "") -> None:
    """Put `data` in the place of `path`, as `replacing` does; text as UTF-8."""
    with replacing(path, what) as file:
        file.write(data.encode(errors="surrogateescape") if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path, what: str = "", remedy: str = "", writer: str = "") -> Iterator[BinaryIO]:
    """A file that takes the place of `path`, on the disk, when the block ends without an error.

    what: named before the path in the sentence. remedy: other than the usual one. writer: tells
    apart those that may write one path at once. Raises `InputError` where it cannot be written;
    the old file, if there is one, then stays.
    """
    aside = path.with_name(".".join(filter(None, (path.name, writer, "writing"))))
    try:
        try:
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync(path.parent)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
    except OSError as failed:
        raise unwritable(path, failed, what, remedy) from None


def append(path: Path, line: str, what: str = "") -> None:
    """Add a line to `path`, on the disk, whole or not at all; `InputError` where that fails."""
    try:
        with open(path, "ab", buffering=0) as file:  # a buffer would be written again on closing
            before, rest = file.tell(), line.encode() + b"\n"
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), before)
                raise
    except OSError as failed:
        raise unwritable(path, failed, what) from None


def unwritable(path: Path, failed: OSError, what: str = "", remedy: str = "") -> InputError:
    """The sentence for a file that cannot be written."""
    reason = os.strerror(failed.errno) if failed.errno else str(failed)
    usual = "make room there" if failed.errno in NO_ROOM else "choose a place that can be written"
    return InputError(
        f"{what}{' ' * bool(what)}{path} cannot be written ({reason}): {remedy or usual}"
    )


def _sync(folder: Path) -> None:
    """Have the renaming itself on the disk, where folders can be synced."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
