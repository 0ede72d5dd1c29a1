"""What each part of a run cost, in seconds and in bytes sent: nothing hides cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, Protocol, TypeVar

Item = TypeVar("Item")


class Counts(Protocol):
    """Anything that counts the bytes this rank has sent."""

    @property
    def traffic(self) -> int:
        """Bytes sent so far."""


class Costs:
    """Seconds and bytes by part ("scoring", "exchange", ...), since the last `take`.

    marks: what also surrounds each part, called with its name, such as a profiler's ranges.
    """

    marks: ClassVar[list[Callable[[str], AbstractContextManager[Any]]]] = []

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.bytes: defaultdict[str, int] = defaultdict(int)

    def add(self, part: str, seconds: float) -> None:
        """Book `seconds` to `part`."""
        self.seconds[part] += seconds

    @contextmanager
    def measure(self, part: str, counter: Counts | None = None) -> Iterator[None]:
        """Book the wall time of the block, and the bytes `counter` counted in it, to `part`."""
        started, sent = time.perf_counter(), counter.traffic if counter else 0
        try:
            if self.marks:
                with ExitStack() as around:
                    for mark in tuple(self.marks):
                        around.enter_context(mark(part))
                    yield
            else:
                yield
        finally:
            self.add(part, time.perf_counter() - started)
            if counter:
                self.bytes[part] += counter.traffic - sent

    def over(self, items: Iterable[Item], part: str) -> Iterator[Item]:
        """The items; the wall time spent waiting for each is booked to `part`."""
        end, coming = object(), iter(items)
        while True:
            with self.measure(part):
                item = next(coming, end)
            if item is end:
                return
            yield item  # type: ignore[misc]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Book the block to "total", and the CPU time of all this process's threads to "cpu"."""
        started, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.add("total", time.perf_counter() - started)
            self.add("cpu", time.process_time() - worked)

    def restore(self, seconds: Mapping[str, float], sent: Mapping[str, int]) -> None:
        """Go on from costs that were saved."""
        self.seconds.update(seconds)
        self.bytes.update(sent)

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """(seconds, bytes) so far, and start again from nothing."""
        taken = dict(self.seconds), dict(self.bytes)
        self.seconds.clear()
        self.bytes.clear()
        return taken
