"""pyarrow, imported when a parquet file is, and its complaints turned into one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hvdfilter import files
from hvdfilter.errors import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_DICTIONARY = 2  # a page's kind


@contextmanager
def reading(path: Path, remedy: str = "fetch it again") -> Iterator[pq.ParquetFile]:
    """The opened file; `InputError` that names it where it is none. remedy: what to do then."""
    pyarrow = pyarrow_module()
    import pyarrow.parquet as pq

    files.size(path)  # a pipe would be waited for
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except InputError:
        raise
    # Names that are no UTF-8 are found by Python.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0].rstrip(". ")
        raise InputError(
            f"{path}: is no parquet file, or a damaged one ({reason}); {remedy}."
        ) from error


def chunks(file: pq.ParquetFile, column: str) -> list[Any]:
    """What the file's footer says of a column (`image.bytes`), for each row group."""
    rows = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    every = [row.column(number) for row in rows for number in range(row.num_columns)]
    return [chunk for chunk in every if chunk.path_in_schema == column]


def unpacked(file: pq.ParquetFile, column: str) -> int:
    """Bytes of a column's pages once decompressed; values that share one are counted once."""
    return sum(int(chunk.total_uncompressed_size) for chunk in chunks(file, column))


def dictionary_bytes(path: Path, chunk: Any) -> int:
    """Bytes of the dictionary of a column chunk; 0 if it has none.

    Rows share what is in a dictionary, and each gets a copy when it is read: this is the most that
    one row can add to what `unpacked` says.
    """
    with files.opened(path) as file:
        file.seek(max(0, chunk.dictionary_page_offset or chunk.data_page_offset))
        head = file.read(16)
    # A page's header begins, in Thrift's compact form, with its kind and its decompressed size:
    # each a byte that says "the next field, an int32" and a zigzag number of seven bits a byte.
    numbers, at = [], 0
    for _ in range(2):
        number = shift = 0
        for byte in head[at + 1 : at + 6] if head[at : at + 1] == b"\x15" else b"":
            at, number, shift = at + 1, number | (byte & 127) << shift, shift + 7
            if byte < 128:
                numbers.append(number >> 1)
                break
        at += 1
    if len(numbers) < 2:  # damaged, as reading it will say
        return int(chunk.total_uncompressed_size)
    return numbers[1] if numbers[0] == _DICTIONARY else 0


def pyarrow_module() -> ModuleType:
    """pyarrow; `InputError` naming the extra that brings it where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            "parquet needs pyarrow, which is not installed: pip install 'hvdfilter[data]'."
        ) from error
    return pyarrow
