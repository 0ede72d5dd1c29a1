"""One encoded image (JPEG, PNG, ...) to a uint8 array, by Pillow, or one sentence on why not.

It never guesses: a damaged file is an InputError that says where it lies, not a grey square.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from hvdfilter.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_GREY = ("1", "L", "LA", "I", "I;16", "F")


def header(data: bytes, where: str) -> tuple[bool, int, int]:
    """(is grey, height, width) without decoding the pixels."""
    with _opened(data, where) as image:
        return image.mode in _GREY, image.height, image.width


def decode(data: bytes, where: str, shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    """uint8 [C, H, W] of one encoded image; C = 1 is grey, C = 3 is RGB.

    With `resize` (the shape then is square) the shorter side is brought to H, bilinearly, and the
    centre cut out; without, the image must have that size. InputError naming `where` if it has
    not, or if it cannot be decoded.
    """
    channels, height, width = shape
    with _opened(data, where) as image:
        if resize:
            image = _resize(image, height)
        elif (image.height, image.width) != (height, width):
            raise InputError(
                f"{where}: is {image.width}x{image.height} pixels in a set of {width}x{height}; "
                f"give a common size after the folder, such as DIR,{min(height, width)}."
            )
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _resize(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, then the central square."""
    # JPEG can decode straight to a half, quarter or eighth: never below what is wanted here.
    image.draft(None, (size, size))
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    square = (left, top, left + shorter, top + shorter)
    if image.mode in ("1", "P", "PA"):
        image = image.convert("RGB")  # a palette's numbers cannot be averaged
    return image.resize((size, size), resample=2, box=square)  # 2 is Pillow's BILINEAR


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[Image.Image]:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            "decoding images needs Pillow, which is not installed: pip install 'hvdfilter[data]'."
        ) from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except InputError:
        raise
    # Pillow lets the errors of each format's own parser through.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InputError(
            f"{where}: is no readable image ({error}); replace or remove it."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{where}: is too large to be a sample ({error}).") from error
