"""Files of every format, written byte by byte for the reader tests, with no help from a reader."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx_set(
    folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train", zipped: bool = True
) -> None:
    for what, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
        data = idx(array)
        name = f"{prefix}-{what}-ubyte" + (".gz" if zipped else "")
        (folder / name).write_bytes(gzip.compress(data) if zipped else data)


def cifar_record(label: int, pixels: np.ndarray) -> bytes:
    return bytes([label]) + pixels.tobytes()


def _text(value: bytes) -> bytes:
    """A Python 2 string in protocol 2: SHORT_BINSTRING or BINSTRING."""
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def cifar_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes that Python 2's cPickle wrote for a CIFAR-10 batch, spelled out one by one."""
    rows, columns = pixels.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n"
        + b"K\x00\x85"  # shape (0,)
        + _text(b"b")
        + b"\x87R"  # 3-tuple, call
        + b"(K\x01"  # state: version 1
        + b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
        + b"cnumpy\ndtype\n" + _text(b"u1") + b"K\x00K\x01\x87R"
        + b"(K\x03" + _text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89"  # False: C order
        + _text(pixels.tobytes())
        + b"tb"
    )  # fmt: skip
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return (
        b"\x80\x02}("
        + _text(b"data") + array
        + _text(b"labels") + b"](" + numbers + b"e"
        + _text(b"batch_label") + _text(b"training batch 1 of 5")
        + b"u."
    )  # fmt: skip


def picture(array: np.ndarray, kind: str = "PNG") -> bytes:
    """uint8 [H, W] or [H, W, 3] as an encoded image; PNG is lossless."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()
