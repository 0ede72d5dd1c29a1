"""TensorBoard's event files, written by hand: scalars alone, and no package needed for them.

A file is a series of TFRecords: length (8 bytes), masked CRC-32C of it (4), data, masked CRC-32C of
the data (4). Each record is an `Event` message: wall time, step, and either the version of the
format or tagged values. Little-endian throughout. It reads nothing back.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

VERSION = "brain.Event:2"

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
# Wire types of protocol buffers.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def first_record(at: float) -> bytes:
    """What a file starts with. at: seconds since 1970."""
    return _record(_double(1, at) + _field(3, VERSION.encode()))


def scalars_record(at: float, step: int, values: Mapping[str, float]) -> bytes:
    """Values by tag, all of one step."""
    summary = b"".join(
        _field(1, _field(1, tag.encode()) + _key(2, _FOUR) + struct.pack("<f", value))
        for tag, value in values.items()
    )
    return _record(_double(1, at) + _key(2, _VARINT) + _varint(step) + _field(5, summary))


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, section 12.1) of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    """The checksum as TFRecords hold it: rotated, so that one over data with checksums is sound."""
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _field(number: int, data: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(data)) + data


def _double(number: int, value: float) -> bytes:
    return _key(number, _EIGHT) + struct.pack("<d", value)


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_entry(byte) for byte in range(256)]
