"""One encoded image (JPEG, PNG, ...) to a uint8 array, by Pillow, or one sentence on why not.

It never guesses: a damaged file is an InputError that says where it lies, not a grey square. The
formats of `FORMATS` are read, up to `limits.PIXELS` pixels by the header, and no others: some of
Pillow's start programs.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from hvdfilter.data.limits import PIXELS
from hvdfilter.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_GREY = ("1", "L", "LA", "I", "I;16", "F")
# Threads decode together, but images of more pixels than this one after another.
_LARGE = PIXELS // 8
_alone = threading.Lock()


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
            # JPEG can decode straight to a half, quarter or eighth: never below what is wanted.
            image.draft(None, (height, height))
        elif (image.height, image.width) != (height, width):
            raise InputError(
                f"{where}: is {image.width}x{image.height} pixels in a set of {width}x{height}; "
                f"give a common size after the folder, such as DIR,{min(height, width)}."
            )
        with _alone if image.width * image.height > _LARGE else nullcontext():
            image = _resize(image, height) if resize else image
            array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _resize(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, then the central square."""
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
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > PIXELS:
                raise InputError(
                    f"{where}: is {image.width}x{image.height} pixels, more than the {PIXELS} that "
                    "a sample may have; shrink or remove it."
                )
            yield image
    except (InputError, MemoryError):  # a full memory is no fault of the image
        raise
    # Each format has a parser of its own, and damage can make it raise anything.
    except Exception as error:
        raise InputError(
            f"{where}: is no readable image ({_reason(error)}); replace or remove it."
        ) from error


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return f"none of {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__
