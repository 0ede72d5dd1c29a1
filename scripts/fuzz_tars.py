"""WebDataset tars to be damaged, and what is made of them: their index, the decoded cache.

The tars are written with Python's tarfile, not with anything of hvdfilter's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from pathlib import Path

import torch

from hvdfilter.data import open_dataset
from hvdfilter.training import decoded_cache
from scripts.fuzz_pictures import ALONE, COUNT, all_of, encoded, random_pixels


def write_tars(folder: Path) -> list[Path]:
    """Three tars, in each of the forms that there are."""
    paths = []
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    for number, (form, kind) in enumerate(zip(forms, ("PNG", "JPEG", "WEBP"), strict=True)):
        paths.append(folder / f"train-{number}.tar")
        with tarfile.open(paths[-1], "w", format=form) as tar:
            for sample, picture in enumerate(random_pixels((COUNT, 9, 9, 3))):
                # Long names have headers of their own.
                stem = f"{'folder/' * 20 * (sample % 2)}{sample}é."
                label = f"{sample % 10}" if sample % 3 else json.dumps({"label": sample % 10})
                for ending, data in (
                    (kind.lower().replace("jpeg", "jpg"), encoded(picture, kind)),
                    ("cls" if sample % 3 else "json", label.encode()),
                ):
                    member = tarfile.TarInfo(stem + ending)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return paths


read_tars = all_of("webdataset:{}")


def write_indexes(folder: Path) -> list[Path]:
    """The indexes of three tars."""
    write_tars(folder)
    read_tars(folder)
    return sorted(Path(os.environ["HVDFILTER_DATA_CACHE"]).glob("*.tarindex"))


def read_again(folder: Path, cache: Path | None = None) -> object:
    """The samples of the tars, which must be the right ones whatever was damaged."""
    images = open_dataset(f"webdataset:{folder}", train=True, decode=False)
    known = _KNOWN.setdefault(folder, images.batch(range(len(images))))
    found = images if cache is None else decoded_cache.decoded(images, cache, ALONE)
    batch = found.batch(range(len(images)))
    if not all(torch.equal(one, other) for one, other in zip(batch, known, strict=True)):
        raise AssertionError("read other samples")
    return batch


_KNOWN: dict[Path, tuple[torch.Tensor, torch.Tensor]] = {}


def read_decoded(folder: Path) -> object:
    """As `read_again`, from the decoded cache."""
    with contextlib.redirect_stderr(io.StringIO()):  # where it warns of each damage
        return read_again(folder, folder / "decoded")


def write_decoded(folder: Path) -> list[Path]:
    """The decoded cache of three tars."""
    write_tars(folder)
    read_decoded(folder)
    return sorted((folder / "decoded").glob("*.pixels"))
