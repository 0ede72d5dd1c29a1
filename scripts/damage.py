"""Damage to a file's bytes by a seed: flipped bits, cuts, splices, numbers that are too large.

The same seed makes the same damage to the same bytes, so that a fault can be met again.
"""

from __future__ import annotations

import random

# What lengths and counts are when they lie, as whole numbers of one to eight bytes.
_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
_WORDS = (
    b"9" * 25,
    b"-1",
    b"1e999",
    b"null",
    b"[" * 50,
    b"&a [*a]",
    b"\xff\xfe",
    b"\n",
    b"\0" * 64,
)


def damage(data: bytes, draw: random.Random) -> bytes:
    """One to three of the kinds of damage, at random places; never the same bytes again."""
    while True:
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            draw.choice(_KINDS)(damaged, draw)
        if damaged != data:
            return bytes(damaged)


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        if data:
            data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random) -> None:
    if draw.random() < 0.5:
        del data[_place(data, draw) :]
    else:
        at = _place(data, draw)
        del data[at : at + draw.choice((1, 4, 16, 1000))]


def _splice(data: bytearray, draw: random.Random) -> None:
    """A piece of the file once more, at another place."""
    at, length = _place(data, draw), draw.choice((1, 4, 64, 1000))
    piece = data[at : at + length]
    to = _place(data, draw)
    data[to : to + draw.choice((0, len(piece)))] = piece


def _number(data: bytearray, draw: random.Random) -> None:
    at, size = _place(data, draw), draw.choice((1, 2, 4, 8))
    value = draw.choice(_NUMBERS) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, draw.choice(("little", "big")))


def _word(data: bytearray, draw: random.Random) -> None:
    at, word = _place(data, draw), draw.choice(_WORDS)
    data[at : at + draw.choice((0, 1, len(word)))] = word


_KINDS = (_flip, _cut, _splice, _number, _word)


def _place(data: bytearray, draw: random.Random) -> int:
    """Anywhere, but more often near the ends, where formats keep what they say of themselves."""
    if not data:
        return 0
    where = draw.random()
    near = min(len(data), 256)
    if where < 0.3:
        return draw.randrange(near)
    if where < 0.6:
        return len(data) - 1 - draw.randrange(near)
    return draw.randrange(len(data))
