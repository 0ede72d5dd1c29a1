"""pyarrow, imported when a parquet file is, and its complaints turned into one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hvdfilter import files
from hvdfilter.errors import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_DICTIONARY = 2  # a page's kind
_SMALL = 1 << 24  # bytes of a row group that are not worth a closer look


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


def unpacked(file: pq.ParquetFile) -> int:
    """Bytes of all pages once decompressed; values that share a dictionary's are counted once."""
    groups = range(file.num_row_groups)
    return sum(int(file.metadata.row_group(group).total_byte_size) for group in groups)


def longest(file: pq.ParquetFile, path: Path, group: int, column: str) -> int:
    """The most bytes that one row of a row group can add by what it shares with others.

    Rows share what is in a column's dictionary, and each gets a copy when it is read. That is at
    most the whole group, and where that is large, what the dictionary's page says of itself.
    """
    whole = int(file.metadata.row_group(group).total_byte_size)
    if whole <= _SMALL:
        return max(0, whole)
    import pyarrow.parquet as pq

    # What the footer says of a column ends the process where it is damaged in a certain way, but is
    # an error like others where the column is read first.
    with pq.ParquetFile(path, buffer_size=1 << 16) as probe:
        next(probe.iter_batches(1, row_groups=[group], columns=[column]), None)
    names = [file.schema.column(number).path for number in range(len(file.schema))]
    chunk = file.metadata.row_group(group).column(names.index(column))
    page = chunk.dictionary_page_offset or chunk.data_page_offset
    return min(whole, dictionary_bytes(path, page, whole))


def dictionary_bytes(path: Path, offset: int, otherwise: int) -> int:
    """Bytes of the dictionary whose page is at `offset`, decompressed; 0 if it is another page.

    otherwise: for a page whose beginning is damaged, as reading it will say.
    """
    with files.opened(path) as file:
        file.seek(max(0, offset))
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
    if len(numbers) < 2:
        return otherwise
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
