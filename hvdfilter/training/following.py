"""Followers: what watches a run as it goes, such as a display or a trace, and how it is told.

One mechanism for all of them. Between two steps it costs a look at the clock on rank 0 and a call
of those that asked for every step; the loss, which a GPU would have to be waited for, is fetched
only when somebody's time has come. A follower changes nothing of the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from hvdfilter.errors import warn
from hvdfilter.installation import reason
from hvdfilter.training.meter import Meter, Now

if TYPE_CHECKING:
    from hvdfilter.training.loop import Progress, Report, Trainer
    from hvdfilter.world import World


class Follower:
    """Does nothing; what follows a run overrides what it needs.

    every: seconds between two calls of `tick`, or since an epoch ended, at least.
    """

    every = math.inf

    def prepare(self, world: World) -> None:
        """On every rank, before anything of a run is made: the place to refuse."""

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """On every rank, before a run's first epoch.

        turn: its name where there are several. epochs: how many it trains, of which a resumed one
        has some behind it; the models of an opening train fewer than their configuration says.
        """

    def step(self, run: Trainer, step: int, steps: int) -> None:
        """On every rank, after every step: of the epoch's `steps`, so many are done."""

    def tick(self, run: Trainer, now: Now) -> None:
        """On rank 0, after a step, once `every` seconds have passed."""

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        """On every rank, with the line of `metrics.jsonl` of an epoch that has ended."""

    def end(self) -> None:
        """On every rank, when all is over, also by an exception; its own becomes a warning."""


class Called(Follower):
    """The two functions that a caller of `train` may give; records are of the run itself alone."""

    def __init__(self, progress: Progress, report: Report) -> None:
        self._progress, self._report = progress, report
        self._turn = ""

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """Several may begin one after another, as an opening's models do."""
        self._turn = turn

    def step(self, run: Trainer, step: int, steps: int) -> None:
        """Every step of every rank."""
        self._progress(run.epoch, step, steps)

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        """Every epoch of every rank."""
        if not self._turn:
            self._report(record)


class Following:
    """All followers of a job; it hands each trainer the two callbacks that it takes."""

    def __init__(self, followers: Sequence[Follower] = ()) -> None:
        self._followers = tuple(followers)
        self._meter = Meter()
        self._wait(0.0)
        # Only the methods that do something, so that a step pays for no more.
        self._steps = [f.step for f in self._followers if type(f).step is not Follower.step]

    @contextmanager
    def open(self, world: World) -> Iterator[Following]:
        """Collective. While open; every follower is told of the end, and none hides its cause."""
        with ExitStack() as ends:
            for follower in reversed(self._followers):
                ends.callback(_end, follower, world)
            for follower in self._followers:
                follower.prepare(world)
            yield self

    def expect(self, turns: Mapping[str, int]) -> None:
        """Say of runs that begin later how many epochs they train, by turn: time left has them."""
        for turn, epochs in turns.items():
            self._meter.expect(turn, epochs)

    def begin(
        self, run: Trainer, turn: str = "", epochs: int | None = None
    ) -> tuple[Progress, Report]:
        """The callbacks of a run that is about to start. epochs: that it trains, if not all."""
        last = run.config.epochs if epochs is None else epochs
        self._meter.begin(turn, last, run.epoch, run.step)
        for follower in self._followers:
            follower.begin(run, turn, last)
        self._wait(time.monotonic())
        looks = run.world.rank == 0 and any(f.every < math.inf for f in self._followers)

        def progress(epoch: int, step: int, steps: int) -> None:
            for call in self._steps:
                call(run, step, steps)
            if looks:
                self._tick(run, turn, step, steps)

        def report(record: dict[str, Any]) -> None:
            now = self._meter.epoch(run, turn, record)
            for follower in self._followers:
                follower.epoch(run, record, now)
            self._wait(time.monotonic())

        return progress, report

    def _wait(self, at: float) -> None:
        self._due = [at + follower.every for follower in self._followers]

    def _tick(self, run: Trainer, turn: str, step: int, steps: int) -> None:
        at = time.monotonic()
        self._meter.step(at, turn, step)
        now = None
        for number, follower in enumerate(self._followers):
            if at >= self._due[number]:
                now = now or self._meter.now(run, turn, step, steps, at)
                follower.tick(run, now)
                self._due[number] = at + follower.every


def _end(follower: Follower, world: World) -> None:
    """Tell it of the end. A run that went well, or an error that ended it, is worth more."""
    try:
        follower.end()
    except Exception as failed:  # of anybody's follower
        where = f"{world.collective.place}: " if world.size > 1 else ""
        warn(
            f"{where}{type(follower).__name__} failed at the end of the job ({reason(failed)}): "
            "what it leaves may be incomplete"
        )
