"""Score files: what is known of every sample, made once and used by many runs.

One parquet file for the whole set: `id`, `label` and one column a field, in order of id, and in its
metadata how they were made. One file and not one a rank, so that any number of ranks can read it;
rank 0 writes it a row group at a time, so that it never holds more than that, and a rank reads
only the row groups whose ids meet its own block. It never decides what a field means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter import files
from hvdfilter.agreement import Blocks, Collective
from hvdfilter.data.arrow import pyarrow_module, reading, unpacked
from hvdfilter.data.limits import SLACK
from hvdfilter.errors import InputError
from hvdfilter.version import __version__

FORMAT = "hvdfilter-scores-1"
#: Rows of a row group: 2 MB of a handful of fields, and ten of them in ImageNet.
GROUP = 1 << 17
#: Fields that a run notes over several epochs, and that static policies choose by.
AGGREGATES = (
    *("el2n", "grand", "aum", "forgetting", "learnt", "dyn_unc"),
    *("feature_gradient", "feature_reconstruction", "feature_density"),
)
_KEY = b"hvdfilter"
_WHAT = "score file"
_REMEDY = "make it again with `hvdfilter score RUN`"

Columns = dict[str, NDArray[Any]]


def write(
    path: Path,
    columns: Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    num_samples: int,
    made: Mapping[str, Any],
    collective: Collective,
    group: int = GROUP,
) -> None:
    """Collective. Write what the ranks hold of their own blocks of ids as one file.

    columns: field -> float32 or bool [n], this rank's block. labels: int [n]. made: plain values
    that say how (model, data, epochs, seeds); the version is added. The file is complete or absent.
    Raises `InputError` on every rank where it cannot be written.
    """
    blocks = Blocks(num_samples, collective.size)
    start, length = blocks.start(collective.rank), blocks.length(collective.rank)
    held = {"label": np.asarray(labels, np.int64), **columns}
    with collective.errors_shared():
        for name, values in held.items():
            if values.shape != (length,):
                raise InputError(
                    f"scores {name!r} have shape {values.shape}; this rank's block is ({length},)"
                )
    writer = None
    with collective.errors_shared():
        if collective.rank == 0:
            writer = _Writer(path, held, {"num_samples": num_samples, **made})
    failed: Exception | None = None
    for first in range(0, num_samples, group):
        last = min(first + group, num_samples)
        mine = slice(max(first - start, 0), max(last - start, 0))
        rows = {name: _at_first(values[mine], collective) for name, values in held.items()}
        if writer is not None and failed is None:
            failed = writer.add(first, rows)
    if writer is not None:
        failed = writer.close(failed)
    collective.share_error(failed)


def read(
    path: str | Path,
    names: Iterable[str],
    start: int,
    stop: int,
    num_samples: int,
    labels: NDArray[Any] | None = None,
) -> Columns:
    """The fields `names` of the samples [start, stop), in order of id; not collective.

    labels: int [stop - start] that the file must hold too, or None. The arrays are read-only.
    Raises `InputError` for a file of another set: another number of samples, ids missing or there
    twice, other labels, NaN, or without one of the fields. Together the ranks find whatever is
    wrong: each looks at its own block alone.
    """
    place = Path(path)
    try:
        state = place.stat()
    except OSError as failed:
        raise InputError(
            f"score file {path} cannot be read ({failed.strerror}): {_REMEDY}"
        ) from None
    stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
    found = _block(place, stamp, tuple(names), start, stop, num_samples)
    if labels is not None and (other := np.flatnonzero(found["label"] != labels)).size:
        at = int(other[0])
        raise InputError(
            f"{path}: sample {start + at} has label {found['label'][at]}, but {labels[at]} in the "
            "set that is trained: give the scores of this set, in its order"
        )
    return found


def made(path: str | Path) -> dict[str, Any]:
    """How the scores were made, as `write` was told; empty for a file that does not say."""
    with reading(Path(path), _REMEDY) as file:
        return dict(json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}")))


class _Writer:
    """The file that rank 0 writes; a failure is returned, for the other ranks are on their way."""

    def __init__(self, path: Path, held: Mapping[str, NDArray[Any]], made: dict[str, Any]) -> None:
        pyarrow = pyarrow_module()
        import pyarrow.parquet as pq

        self._path, self._open = path, ExitStack()
        said = {"format": FORMAT, "hvdfilter": __version__, **made}
        columns = [("id", pyarrow.int64())]
        columns += [(name, pyarrow.from_numpy_dtype(a.dtype)) for name, a in held.items()]
        self._schema = pyarrow.schema(columns, metadata={_KEY: json.dumps(said).encode()})
        file = self._open.enter_context(files.replacing(path, _WHAT))
        self._file = pq.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, first: int, rows: Columns) -> Exception | None:
        """One row group, of the ids from `first` on."""
        ids = np.arange(first, first + len(rows["label"]))
        table = pyarrow_module().table({"id": ids, **rows}, schema=self._schema)
        try:
            self._file.write_table(table, row_group_size=len(ids))
        except OSError as failed:
            return files.unwritable(self._path, failed, _WHAT)
        return None

    def close(self, failed: Exception | None) -> Exception | None:
        """Put the file in its place, unless something has `failed`."""
        try:
            with self._open:
                self._file.close()
                if failed is not None:
                    raise failed
        except InputError as error:
            return failed or error
        return None


def _at_first(part: NDArray[Any], collective: Collective) -> NDArray[Any]:
    """The parts of all ranks, joined, on rank 0; none elsewhere."""
    parts = [part[:0].view(np.uint8)] * collective.size
    parts[0] = np.ascontiguousarray(part).view(np.uint8)
    return np.concatenate(collective.alltoall(parts)).view(part.dtype)


@lru_cache(maxsize=4)  # a static choice asks for the same block in every epoch
def _block(
    path: Path, stamp: tuple[int, ...], names: tuple[str, ...], start: int, stop: int, number: int
) -> Columns:
    """As `read`, with `label` among the columns. stamp: another one when the file has changed."""
    with reading(path, _REMEDY) as file:
        schema = file.schema_arrow
        _check_schema(path, schema, names)
        if file.metadata.num_rows != number:
            raise InputError(
                f"{path}: holds {file.metadata.num_rows} samples, but {number} are trained: give "
                "the scores of this set"
            )
        wanted = ("id", "label", *names)
        # Its rows are as many as the set's, so each column has its place in memory already.
        width, stored = len(schema.names), unpacked(file)
        if stored > 16 * number * width + SLACK:
            raise InputError(
                f"{path}: unpacks to {stored} bytes for {number} samples of {width} columns, so "
                f"it is damaged: {_REMEDY}"
            )
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(rows, dtype=np.int64)
        # Where the ids stand in order, as `write` leaves them; elsewhere every group is looked at.
        likely = np.flatnonzero((ends > start) & (ends - rows < stop)).tolist()
        for groups in (likely, range(len(rows))):
            # The empty table gives every column its type on a rank that owns no sample.
            tables = [schema.empty_table()]
            for group in groups:
                tables.append(file.read_row_group(group, columns=list(wanted)))
                ids = _values(path, tables[-1], "id")
                tables[-1] = tables[-1].filter((ids >= start) & (ids < stop))
            if sum(table.num_rows for table in tables) == stop - start:
                break
        found = {
            name: np.concatenate([_values(path, table, name) for table in tables])
            for name in wanted
        }
    order = _order(path, found.pop("id"), start, stop)
    columns = {name: values[order] for name, values in found.items()}
    for name in names:
        _check_numbers(path, name, columns[name], start)
    for values in columns.values():
        values.flags.writeable = False
    return columns


def _check_schema(path: Path, schema: Any, names: tuple[str, ...]) -> None:
    types = pyarrow_module().types
    for name in ("id", "label", *names):
        if name not in schema.names:
            has = ", ".join(sorted(set(schema.names) - {"id", "label"})) or "none"
            raise InputError(f"{path}: has no field {name!r} (there are: {has}): {_REMEDY}")
        kind = schema.field(name).type
        integer = types.is_integer(kind)
        number = integer or types.is_floating(kind) or types.is_boolean(kind)
        if not (integer if name in ("id", "label") else number):
            raise InputError(f"{path}: field {name!r} holds {kind}, not numbers: {_REMEDY}")


def _values(path: Path, table: Any, name: str) -> NDArray[Any]:
    column = table.column(name)
    if column.null_count:
        raise InputError(f"{path}: {column.null_count} rows have no {name}: {_REMEDY}")
    values: NDArray[Any] = column.to_numpy()
    if name in ("id", "label"):
        return values.astype(np.int64)
    return values if values.dtype == bool else values.astype(np.float32)


def _order(path: Path, ids: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Where the samples [start, stop) stand, each of which must be there once."""
    times = np.bincount(ids - start, minlength=stop - start)
    for wrong, words in ((times == 0, "is missing"), (times > 1, "is there twice")):
        if wrong.any():
            raise InputError(
                f"{path}: sample {start + int(wrong.argmax())} {words} (ids must be all of "
                "0 .. N-1, each once): give the scores of this set"
            )
    return np.argsort(ids, kind="stable")


def _check_numbers(path: Path, name: str, values: NDArray[Any], start: int) -> None:
    bad = np.isnan(values)
    if bad.any():
        raise InputError(
            f"{path}: the {name} of sample {start + int(bad.argmax())} is NaN "
            f"({int(bad.sum())} such samples): {_REMEDY}"
        )
