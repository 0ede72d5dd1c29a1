"""The one reader of a pickle: CIFAR-10's python batches, which exist in no other form.

The unpickler can name three globals, those in the files that Toronto published, and gets for each
a stand-in of this file that only notes what it is given. No code of the pickle's choice is ever
looked up or called; any other global is refused by name. Nothing else in the package may use it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from hvdfilter.errors import InputError

# What a damaged stream can make the unpickler raise, apart from the refusal below.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)

_PLACES = 1 << 20  # in the unpickler's memo


class _Dtype:
    """Stands in for numpy.dtype(code, align, copy)."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and field names, of no use for single bytes."""


class _Kind:
    """Stands in for numpy.ndarray, which the files only pass as an argument."""


class _Array:
    """Stands in for an array: keeps (version, shape, dtype, fortran order, bytes)."""

    state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def numpy(self) -> np.ndarray:
        """The uint8 array; ValueError or TypeError if the state is anything else."""
        shape: tuple[int, ...]
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", "|u1"):
            raise ValueError("the array is not of bytes")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("the shape is no tuple of sizes")
        if not isinstance(raw, bytes) or math.prod(shape) != len(raw):
            raise ValueError("the array is shorter than its shape")
        array = np.frombuffer(raw, np.uint8)
        return array.reshape(shape, order="F") if fortran else array.reshape(shape)


def _reconstruct(*_: object) -> _Array:
    """Stands in for numpy's function of this name: an empty array, filled by its state."""
    return _Array()


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # the name since NumPy 2
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        # The files are of Python 2: their strings are bytes.
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise InputError(
                f"{self._path}: refused, since it asks for {module}.{name}, which no CIFAR-10 "
                "batch holds; fetch the file again from its publisher."
            )
        return _ADMITTED[module, name]


def load_batch(data: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [N, 3072], int64 [N]) of one python batch; InputError naming `path` otherwise."""
    try:
        _check_sizes(data)
        batch = _Unpickler(data, path).load()
        fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        pixels, listed = fields["data"].numpy(), fields["labels"]
        # Of other lists NumPy would make what they stand for: some name themselves many times.
        if not isinstance(listed, list) or not all(type(label) is int for label in listed):
            raise ValueError("labels is no list of integers")
        labels = np.array(listed, np.int64)
        if pixels.ndim != 2 or pixels.shape[1] != 3072:
            raise ValueError("not 3072 bytes an image")
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{path}: is no CIFAR-10 python batch, or a truncated one ({error}); fetch it again."
        ) from error
    return pixels, labels


def _check_sizes(data: bytes) -> None:
    """Raise ValueError for what makes the unpickler allocate by a number that the stream names.

    A place in its memo makes room for as many places twice over; a bytearray is made before its
    bytes are read. The published files have 20,000 places and no bytearray.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "BYTEARRAY8" or ("PUT" in opcode.name and (argument or 0) > _PLACES):
            raise ValueError(f"{opcode.name} with {argument!r:.24}")
