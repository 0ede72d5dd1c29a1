"""`open_dataset`: from the words a user writes after `--data` to an `Images` set.

One format is one reader in a file of its own, and one line of the table below. Readers that need
pyarrow, Pillow or scikit-learn import them when used, never when this package is imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from hvdfilter.data.cifar10 import open_cifar10
from hvdfilter.data.digits import open_digits
from hvdfilter.data.idx import open_idx
from hvdfilter.data.imagefolder import open_imagefolder
from hvdfilter.data.images import Description, Images
from hvdfilter.data.parquet import open_parquet
from hvdfilter.data.synthetic import open_synthetic
from hvdfilter.errors import InputError

Reader = Callable[[str, bool, int | None, Description | None], Images]
"""(what follows the colon, training split?, limit, description or None) -> Images"""


@dataclass(frozen=True)
class _Format:
    usage: str
    read: Reader


_FORMATS: dict[str, _Format] = {
    "digits": _Format("digits", open_digits),
    "cifar10": _Format("cifar10:DIR", open_cifar10),
    "parquet": _Format("parquet:DIR[,SIZE]", open_parquet),
    "idx": _Format("idx:DIR[,CLASSES]", open_idx),
    "imagefolder": _Format("imagefolder:DIR[,SIZE]", open_imagefolder),
    "synthetic": _Format("synthetic:N,C,H,W,CLASSES", open_synthetic),
}


def available() -> list[str]:
    """How each known format is written, such as `parquet:DIR[,SIZE]`."""
    return [entry.usage for entry in _FORMATS.values()]


def open_dataset(
    spec: str, *, train: bool, limit: int | None = None, like: Images | None = None
) -> Images:
    """Open the training or the test split of the set that `spec` names (see `available`).

    limit keeps the first `limit` samples. A test split has the statistics, class names and shape
    of its training split: taken from `like`, the opened training split, or else read again.
    InputError, one sentence naming the file and the remedy, for anything missing or damaged.
    """
    name, _, location = spec.partition(":")
    if name not in _FORMATS:
        near = difflib.get_close_matches(name, _FORMATS, n=1, cutoff=0.4)
        hint = f"did you mean {_FORMATS[near[0]].usage}" if near else "write one of "
        hint += "?" if near else ", ".join(available()) + "."
        raise InputError(f"unknown data set {spec!r}; {hint}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1 sample, not {limit}.")
    return _FORMATS[name].read(location, train, limit, like.description if like else None)
