"""pyarrow, imported when a parquet file is, and its complaints turned into one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hvdfilter.errors import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq


@contextmanager
def reading(path: Path, remedy: str = "fetch it again") -> Iterator[pq.ParquetFile]:
    """The opened file; `InputError` that names it where it is none. remedy: what to do then."""
    pyarrow = pyarrow_module()
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(". ")
        raise InputError(
            f"{path}: is no parquet file, or a damaged one ({reason}); {remedy}."
        ) from error


def pyarrow_module() -> ModuleType:
    """pyarrow; `InputError` naming the extra that brings it where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            "parquet needs pyarrow, which is not installed: pip install 'hvdfilter[data]'."
        ) from error
    return pyarrow
