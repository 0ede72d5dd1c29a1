"""`open_dataset`: from the words a user writes after `--data` to an `Images` set.

One format is one reader in a file of its own, and one line of the table below. Readers that need
pyarrow, Pillow or scikit-learn import them when used, never when this package is imported.
`MODULE:READER` is a reader of the user's own, and a package brings one as an entry point of the
group `hvdfilter.data`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvdfilter.data.cifar10 import open_cifar10
from hvdfilter.data.digits import open_digits
from hvdfilter.data.encoded import EncodedImages
from hvdfilter.data.idx import open_idx
from hvdfilter.data.imagefolder import open_imagefolder
from hvdfilter.data.images import Description, Images
from hvdfilter.data.parquet import open_parquet
from hvdfilter.data.synthetic import open_synthetic
from hvdfilter.data.webdataset import open_webdataset
from hvdfilter.errors import InputError
from hvdfilter.registry import Registry, takes

Reader = Callable[[str, bool, int | None, Description | None], Images]
"""(what follows the name, training split?, limit, description or None) -> Images"""

_formats: Registry[Reader] = Registry("data set", "hvdfilter.data")
for _name, _reader, _usage in (
    ("digits", open_digits, "digits"),
    ("cifar10", open_cifar10, "cifar10:DIR"),
    ("parquet", open_parquet, "parquet:DIR[,SIZE]"),
    ("idx", open_idx, "idx:DIR[,CLASSES]"),
    ("imagefolder", open_imagefolder, "imagefolder:DIR[,SIZE]"),
    ("webdataset", open_webdataset, "webdataset:DIR[,SIZE]"),
    ("synthetic", open_synthetic, "synthetic:N,C,H,W,CLASSES"),
):
    _formats.add(_name, _reader, _usage)


def available() -> list[str]:
    """How each known format is written, such as `parquet:DIR[,SIZE]`."""
    return _formats.usages()


def open_dataset(
    spec: str,
    *,
    train: bool,
    limit: int | None = None,
    like: Images | None = None,
    decode: bool = True,
) -> Images:
    """Open the training or the test split of the set that `spec` names.

    spec: as in `available()`, or `MODULE:READER` or `MODULE:READER:LOCATION` for a `Reader` of the
    user's own. limit keeps the first `limit` samples. A test split has the statistics, class names
    and shape of its training split: taken from `like`, the opened training split, or else read
    again. decode: False leaves a set of encoded images as it is, though it would fit in memory, for
    who decodes it elsewhere (`hvdfilter.data.decoded`). InputError, one sentence naming the file
    and the remedy, for anything missing or damaged.
    """
    reader, location = _formats.find(spec)
    arguments = (location, train, limit, like.description if like else None)
    if not takes(reader, *arguments):
        raise InputError(
            f"data set {spec!r} cannot be called: write READER(location, train, limit, description)"
        )
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1 sample, not {limit}.")
    images: Any = reader(*arguments)
    if not isinstance(images, Images):
        raise InputError(
            f"data set {spec!r} is a {type(images).__name__}, not hvdfilter.data.Images"
        )
    return images.ready() if decode and isinstance(images, EncodedImages) else images
