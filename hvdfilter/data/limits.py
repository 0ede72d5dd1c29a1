"""How much a file of a data set may grow when it is opened, looked at before it does.

Compressed formats can promise gigabytes in a few kilobytes. Images of a data set hardly compress,
having been compressed already: a file that promises a hundred times its size is damaged, or not a
data set. The limits are here, and each reader asks before it allocates.
"""

from __future__ import annotations

from hvdfilter.errors import InputError

CLASSES = 1 << 22
"""Classes of a set, 4,194,304: each has a name in memory, and a row of the network's last layer."""

PIXELS = 1 << 26
"""Pixels of one encoded image, 67,108,864 (8192 x 8192): decoding takes up to 12 bytes for each."""

IMAGE_BYTES = 1 << 28
"""Bytes of one encoded image, 256 MiB."""

RATIO, SLACK = 100, 1 << 26
"""A file unpacks to at most `RATIO` times its bytes and `SLACK` (64 MiB) more."""


def check_unpacked(source: object, stored: int, unpacked: int, remedy: str = "") -> None:
    """InputError naming `source` where `stored` bytes promise too many `unpacked` ones."""
    if unpacked > RATIO * stored + SLACK:
        raise InputError(
            f"{source}: has {stored} bytes and unpacks to {unpacked}, more than {RATIO} times as "
            f"many and {SLACK >> 20} MiB, so it is damaged or no data set; "
            f"{remedy or 'fetch it again'}."
        )


def check_classes(source: object, count: int) -> None:
    """InputError naming `source` where there are more than `CLASSES`."""
    if count > CLASSES:
        raise InputError(
            f"{source}: has labels for {count} classes, and at most {CLASSES} can be told apart; "
            "number the classes from 0 without gaps."
        )
