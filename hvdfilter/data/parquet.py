"""`parquet:DIR[,SIZE]`: Hugging Face image-classification parquet, one or many shards.

Files train*.parquet and test*.parquet (or validation*, val*) in DIR or DIR/data; a column `image`
or `img` (struct of bytes and path, or plain binary) and an integer column `label`; class names
from the schema's `huggingface` metadata. Nothing is fetched: images given by path are refused.
What a file would unpack to is read from its footer first, and refused beyond `limits`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvdfilter import files
from hvdfilter.data.arrow import longest, pyarrow_module, reading, unpacked
from hvdfilter.data.encoded import EncodedImages, Later, Source, describe, fits_in_memory
from hvdfilter.data.folder import parse_folder
from hvdfilter.data.images import STATISTICS_SAMPLES, Description, Images, check_labels
from hvdfilter.data.limits import IMAGE_BYTES, PIXELS, check_classes, check_unpacked
from hvdfilter.data.store import InMemory, Rows, store
from hvdfilter.errors import InputError

_USAGE = "parquet:DIR[,SIZE]"
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_BLOCK = 512  # rows decompressed at a time, if
_BLOCK_BYTES = 1 << 27  # they cannot take more than this


@dataclass(frozen=True)
class _Shard:
    """One file whose columns have been found."""

    path: Path
    stored: int
    rows: int
    image: str
    label: str
    class_names: tuple[str, ...]


def open_parquet(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """Images uint8 [C, H, W] in the order of file names and rows; SIZE as for imagefolder.

    A set too large to be held decoded is copied once to a cache folder (see `store`).
    """
    folder, size = parse_folder(location, _USAGE, math.isqrt(PIXELS))
    shards = _open_shards(folder, train)
    if description is None:
        training = shards if train else _open_shards(folder, True)
        names = training[0].class_names or _count_classes(training)
        # The same samples whatever the limit: both splits and all runs normalise alike.
        first = list(_images(training, STATISTICS_SAMPLES))
        description = describe(InMemory(first, _rows(training)), len(first), size, names)
    labels = np.concatenate(list(_labels(shards, limit)))
    _check_shards(shards, labels, len(description.class_names))
    count, identity = len(labels), _identity(shards, len(labels))
    small = fits_in_memory(count, description.shape)

    def source() -> Source:
        images, rows = _images(shards, count), _rows(shards)
        return InMemory(list(images), rows) if small else store(images, identity, rows)

    return EncodedImages(
        Later(source),
        labels,
        description,
        size is not None,
        lambda start, stop: f"{identity} {start} {stop}",
    )


def _open_shards(folder: Path, train: bool) -> list[_Shard]:
    prefixes = ["train"] if train else ["test", "validation", "val"]
    for prefix in prefixes:
        for place in (folder, folder / "data"):
            paths = sorted(place.glob(f"{prefix}*.parquet"))
            if paths:
                shards = [_open_shard(path) for path in paths]
                if sum(shard.rows for shard in shards) == 0:
                    raise InputError(f"{paths[0]}: holds no rows; fetch the data set again.")
                return shards
    names = " or ".join(f"{prefix}*.parquet" for prefix in prefixes)
    raise InputError(f"{folder}: no file {names} in it or in its `data`; complete the data set.")


def _open_shard(path: Path) -> _Shard:
    stored = files.size(path)
    with reading(path) as file:
        schema = file.schema_arrow
        image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
        label = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
        if image is None or label is None:
            wanted = "image" if image is None else "label"
            raise InputError(
                f"{path}: has no column `{wanted}`, only {', '.join(schema.names)}; rename one."
            )
        types = pyarrow_module().types
        kind, leaf = schema.field(image).type, image
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind, leaf = kind.field("bytes").type, f"{image}.bytes"
        if not (types.is_binary(kind) or types.is_large_binary(kind)):
            raise InputError(f"{path}: column `{image}` holds {kind}, not the bytes of images.")
        if not types.is_integer(schema.field(label).type):
            raise InputError(
                f"{path}: column `{label}` holds {schema.field(label).type}, not integers."
            )
        names = _class_names(schema.metadata or {}, label)
        shard = _Shard(path, stored, file.metadata.num_rows, leaf, label, names)
        check_unpacked(path, stored, unpacked(file))
        # Without this a label that a hundred million rows share would be read for each of them.
        if shard.rows > stored:
            raise InputError(
                f"{path}: has {shard.rows} rows in {stored} bytes, too few for as many images; "
                "fetch it again."
            )
        return shard


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """The names of a Hugging Face `ClassLabel`, or none where the file does not say."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def _count_classes(shards: list[_Shard]) -> tuple[str, ...]:
    top = -1
    for shard, labels in zip(shards, _labels(shards, None), strict=True):
        top = max(top, int(labels.max(initial=-1)))
        check_classes(shard.path, top + 1)
    return tuple(str(label) for label in range(max(top + 1, 1)))


def _labels(shards: list[_Shard], limit: int | None) -> Iterator[np.ndarray]:
    """int64 labels of each shard, up to `limit` rows in all."""
    left = sum(shard.rows for shard in shards) if limit is None else limit
    for shard in shards:
        with reading(shard.path) as file:
            column = file.read(columns=[shard.label]).column(0)
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise InputError(f"{shard.path}: row {row} has no label; remove the row.")
        yield column.to_numpy()[:left].astype(np.int64)
        left -= min(left, shard.rows)


def _check_shards(shards: list[_Shard], labels: np.ndarray, num_classes: int) -> None:
    """`check_labels`, with the file and the row in that file."""
    start = 0
    for shard in shards:
        check_labels(labels[start : start + shard.rows], num_classes, str(shard.path))
        start += shard.rows


def _images(shards: list[_Shard], count: int) -> Iterator[bytes]:
    """The encoded bytes of the first `count` images."""
    for shard in shards:
        if count <= 0:
            return
        row = total = 0
        # Batches stop as soon as enough rows were read; row groups behind them stay on disk.
        for column in _columns(shard):
            for image in column[:count].to_pylist():
                if image is None:
                    raise InputError(
                        f"{shard.path}: row {row} holds no image bytes; embed the images."
                    )
                total += len(image)
                yield image
                row += 1
            check_unpacked(shard.path, shard.stored, total)
            count -= len(column)
            if count <= 0:
                return


def _columns(shard: _Shard) -> Iterator[Any]:
    """The column of images, as many rows at a time as are sure to fit in `_BLOCK_BYTES`."""
    with reading(shard.path) as file:
        for group in range(file.num_row_groups):
            largest = longest(file, shard.path, group, shard.image)
            if largest > IMAGE_BYTES:
                raise InputError(
                    f"{shard.path}: has an image of up to {largest} bytes, more than the "
                    f"{IMAGE_BYTES} that a sample may have; fetch it again."
                )
            rows = max(1, min(_BLOCK, _BLOCK_BYTES // max(largest, 1)))
            for batch in file.iter_batches(rows, row_groups=[group], columns=[shard.image]):
                column = batch.column(0)
                struct = pyarrow_module().types.is_struct(column.type)
                yield column.field("bytes") if struct else column


def _rows(shards: list[_Shard]) -> Rows:
    return Rows((str(shard.path), shard.rows) for shard in shards)


def _identity(shards: list[_Shard], count: int) -> str:
    """Changes when a file does: names, sizes and times of the shards, and how much is wanted."""
    facts = [
        (str(s.path.resolve()), s.path.stat().st_size, s.path.stat().st_mtime_ns) for s in shards
    ]
    return json.dumps([facts, shards[0].image, count])
