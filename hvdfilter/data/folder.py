"""What the readers of folders share: `DIR[,NUMBER]` taken apart, files found or named as missing.

It reads no image format; every fault is an InputError that names the path.
"""

from __future__ import annotations

import os
from pathlib import Path

from hvdfilter.errors import InputError


def parse_folder(location: str, usage: str, most: int = 1 << 31) -> tuple[Path, int | None]:
    """`DIR` or `DIR,NUMBER` -> (an existing folder, the number, 1 to `most`, or None)."""
    if not location:
        raise InputError(f"a folder is missing: write {usage}.")
    folder, number = expanded(location), None
    if not os.path.isdir(folder):
        head, number = parse_number(location, usage, most)
        folder = expanded(head)
    if not os.path.isdir(folder):
        kind = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise InputError(f"{folder}: {kind}; write {usage} with the folder that holds the data.")
    return folder, number


def parse_number(location: str, usage: str, most: int = 1 << 31) -> tuple[str, int | None]:
    """`TEXT` or `TEXT,NUMBER` -> (the text, the number, 1 to `most`, or None)."""
    head, _, tail = location.rpartition(",")
    if not (head and tail.isascii() and tail.isdigit() and tail.strip("0")):
        return location, None
    if len(tail.lstrip("0")) > len(str(most)) or int(tail) > most:
        raise InputError(
            f"{head},{tail:.24}: the number is too large; write {usage} with at most {most}."
        )
    return head, int(tail)


def find_file(folders: list[Path], names: list[str]) -> Path:
    """The first of folders x names that is a regular file or links to one, or InputError."""
    for folder in folders:
        for name in names:
            if os.path.isfile(folder / name):
                return folder / name
    raise InputError(f"{folders[0]}: no file {' or '.join(names)} in it; complete the data set.")


def expanded(text: str) -> Path:
    """The path, with ~ for the user's own folder where that is known."""
    return Path(os.path.expanduser(text))
