"""What the readers of folders share: `DIR[,NUMBER]` taken apart, files found or named as missing.

It reads no image format; every fault is an InputError that names the path.
"""

from __future__ import annotations

from pathlib import Path

from hvdfilter.errors import InputError


def parse_folder(location: str, usage: str) -> tuple[Path, int | None]:
    """`DIR` or `DIR,NUMBER` -> (an existing folder, the number or None)."""
    if not location:
        raise InputError(f"a folder is missing: write {usage}.")
    folder, number = Path(location).expanduser(), None
    if not folder.is_dir():
        head, _, tail = location.rpartition(",")
        if head and tail.isdigit() and int(tail) > 0:
            folder, number = Path(head).expanduser(), int(tail)
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder}: {kind}; write {usage} with the folder that holds the data.")
    return folder, number


def find_file(folders: list[Path], names: list[str]) -> Path:
    """The first of folders x names that exists, or InputError naming what was looked for."""
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise InputError(f"{folders[0]}: no file {' or '.join(names)} in it; complete the data set.")


def read_file(path: Path) -> bytes:
    """The whole file; InputError naming it if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
