"""Readers of the formats that a run writes, by their specifications."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def crc32c_bitwise(data: bytes) -> int:
    """CRC-32C by long division, a bit at a time (RFC 3720)."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            top = (crc ^ (byte >> bit)) & 1
            crc = (crc >> 1) ^ (0x82F63B78 if top else 0)
    return crc ^ 0xFFFFFFFF


def records(data: bytes) -> Iterator[bytes]:
    """The payloads of TFRecords, checksums checked."""
    while data:
        (length,) = struct.unpack_from("<Q", data)
        for part, at in ((data[:8], 8), (data[12 : 12 + length], 12 + length)):
            crc = crc32c_bitwise(part)
            masked = (((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack_from("<I", data, at) == (masked,)
        yield data[12 : 12 + length]
        data = data[16 + length :]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer's fields: int, float or bytes by wire type."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
        elif wire == 1:
            yield number, struct.unpack_from("<d", message, at)[0]
            at += 8
        elif wire == 5:
            yield number, struct.unpack_from("<f", message, at)[0]
            at += 4
        else:
            assert wire == 2
            length = varint()
            yield number, message[at : at + length]
            at += length


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag of an event file."""
    found: dict[str, list[tuple[int, float]]] = {}
    for number, record in enumerate(records(path.read_bytes())):
        event = dict(fields(record))
        assert event[1] > 1.7e9  # seconds since 1970
        if number == 0:
            assert event[3] == b"brain.Event:2"
            continue
        for inner, value in fields(event[5]):
            assert inner == 1
            parts = dict(fields(value))
            found.setdefault(parts[1].decode(), []).append((event.get(2, 0), parts[2]))
    return found


_SAMPLE = re.compile(r'([a-z_]+)\{run="((?:[^"\\]|\\.)*)"\} (\S+)')


def exposition(text: str) -> dict[tuple[str, str], float]:
    """(metric, run) -> value, of Prometheus's text format; each metric has help and type once."""
    assert text.endswith("\n")
    values, typed = {}, set()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert lines[number + 1] == f"# TYPE {name} gauge" and name not in typed
            typed.add(name)
        elif not line.startswith("# "):
            found = _SAMPLE.fullmatch(line)
            assert found is not None and found[1] in typed, line
            run = found[2].replace('\\"', '"').replace("\\\\", "\\")
            values[found[1], run] = float(found[3])
    return values


def mllog(text: str) -> list[dict[str, Any]]:
    """The events of MLPerf's log lines."""
    lines = [line for line in text.splitlines() if ":::MLLOG" in line]
    assert all(line.startswith(":::MLLOG {") for line in lines)
    events = [json.loads(line.partition(" ")[2]) for line in lines]
    wanted = ["namespace", "time_ms", "event_type", "key", "value", "metadata"]
    assert all(list(event) == wanted for event in events)
    return events
