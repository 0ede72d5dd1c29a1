"""Hosts to test on, where this machine can make any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.hosts import Hosts, why_not


@pytest.fixture(scope="session")
def possible() -> None:
    """Skips where no hosts can be made."""
    if reason := why_not():
        pytest.skip(f"no hosts: {reason}")


@pytest.fixture
def two(possible: None) -> Iterator[Hosts]:
    """Two hosts for one test, which may break them."""
    with Hosts(2) as hosts:
        yield hosts
