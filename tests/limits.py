"""A full disk and a full memory, for a test: limits of this process while a block runs."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_room(beyond: int = 0) -> Iterator[None]:
    """Writing past `beyond` bytes of any file raises OSError (EFBIG; Python ignores the signal)."""
    with _limited(resource.RLIMIT_FSIZE, beyond):
        yield


@contextmanager
def no_memory(beyond: int) -> Iterator[None]:
    """Allocating `beyond` more bytes than the process has now raises MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with _limited(resource.RLIMIT_AS, pages * resource.getpagesize() + beyond):
        yield


@contextmanager
def _limited(what: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))
