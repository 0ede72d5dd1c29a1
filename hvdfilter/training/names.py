"""What a run may be called: one folder's name, and nothing that leads elsewhere."""

from __future__ import annotations

from hvdfilter.errors import InputError

MOST_BYTES_OF_A_NAME = 200  # of the 255 that file systems allow; `compare` adds the policy


def check_name(name: str) -> None:
    """Raise `InputError` for a run's name that is no folder's: a path, `..`, control characters."""
    # What cannot be printed cannot be typed after --name either: undecodable bytes, line breaks.
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise InputError(
            f"name={name!r} is no name for a folder: give one without a slash, such as "
            "birds-1 (--runs DIR says where it lies)"
        )
    if len(name.encode()) > MOST_BYTES_OF_A_NAME:
        raise InputError(
            f"name={name[:20]!r}... has {len(name.encode())} bytes, and a folder's name has at "
            f"most {MOST_BYTES_OF_A_NAME}: shorten it"
        )
