"""A watchdog: ends a job in which a rank is alive but silent, and says which rank that is.

A rank that is stopped, swaps, or waits for a disk that is gone keeps all others waiting in their
next collective, for good. A thread of each rank leaves signs in RUN/alive: that it runs, and how
far its rank has come. Where a rank has come no further for the limit, its thread finds out who is
to blame, says so, and ends the job. Nothing is sent over the ranks' network.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hvdfilter.world import World

FOLDER = "alive"
FAILURE = 1
Item = TypeVar("Item")


class Watchdog:
    """While open. limit: seconds without progress after which the job ends; 0: never.

    Until it is attached to a run, it can't know of other ranks, and tells where this one is.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._run: tuple[Path, World] | None = None
        self._progress, self._signs_left, self._where = 0, 0, "its start"
        self._last = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        if self._limit > 0:
            self._wind()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = (
                None  # nothing is watched any more, so that no sign winds the timer again
            )
        self.leave()
        faulthandler.cancel_dump_traceback_later()

    def leave(self) -> None:
        """Leave no signs from here on: the run is over, or its ranks are about to change."""
        run, self._run = self._run, None
        if run is not None:
            with suppress(OSError):  # the last one leaves no folder
                _sign(*run).unlink(missing_ok=True)
                run[0].rmdir()
        self.beat("the meeting of the ranks")

    def attach(self, run: Path, world: World) -> None:
        """Leave signs in this run's folder, and look there for those of the other ranks."""
        faulthandler.cancel_dump_traceback_later()
        self._run = run / FOLDER, world
        self.beat("the first batch")

    def beat(self, where: str) -> None:
        """This rank has come further, to `where`."""
        self._progress += 1
        self._where, self._last = where, time.monotonic()
        if self._run is None and self._thread is not None:
            self._wind()

    def over(self, items: Iterable[Item], where: str) -> Iterator[Item]:
        """The items, with a beat at each."""
        for number, item in enumerate(items):
            self.beat(f"{where}, batch {number + 1}")
            yield item

    def _wind(self) -> None:
        # MPI's start holds the interpreter, and the thread: faulthandler's own timer needs neither.
        faulthandler.dump_traceback_later(self._limit, exit=True, file=2)

    def _watch(self) -> None:
        tick = min(10.0, self._limit / 8)
        while not self._over.wait(tick):
            self._leave_sign()
            if time.monotonic() - self._last > self._limit:
                self._end(tick)

    def _end(self, tick: float) -> None:
        """Find out who is silent, say so, and end the job; unless this rank comes on meanwhile."""
        before, progress = self._signs(), self._progress
        for _ in range(4):  # twice the time that a thread which runs takes to leave a sign
            if self._over.wait(tick / 2):
                return
            self._leave_sign()
        after = self._signs()
        if self._progress != progress:
            return
        stopped = [rank for rank in after if before.get(rank) == after[rank]]
        if stopped:
            who = ", ".join(after[rank][3] for rank in stopped)
            blame = f": {who} gives no sign of life (stopped, swapping, or its host is gone)"
        elif after:
            slowest = min(after, key=lambda rank: after[rank][1])
            blame = f": {after[slowest][3]} is the furthest behind, at {after[slowest][2]}"
            hosts = sorted({place.partition(" on ")[2] for *_, place in after.values()})
            if len(hosts) > 1:
                blame += f" (or the network between {', '.join(hosts[:4])} is down)"
        else:
            blame = ""
        me = "" if self._run is None else f"{self._run[1].collective.place}: "
        print(
            f"hvdfilter: error: {me}no progress for {self._limit:g} s, at {self._where}{blame}; "
            "the job ends here, and goes on with --resume true (--silence_minutes is the limit)",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(FAILURE)  # an orderly exit would wait for who is silent

    def _leave_sign(self) -> None:
        """Say that this thread runs and how far its rank has come; where it can't, nothing is."""
        if (run := self._run) is None:
            return
        self._signs_left += 1
        with suppress(OSError):  # a full disk is told of by what needs it
            run[0].mkdir(exist_ok=True)
            place = run[1].collective.place
            sign = [self._signs_left, self._progress, self._where, place]
            _sign(*run).write_text(json.dumps(sign))

    def _signs(self) -> dict[int, Any]:
        """What each rank has left."""
        found: dict[int, Any] = {}
        if (run := self._run) is not None:
            for rank in range(run[1].size):
                with suppress(OSError, ValueError):  # being written now, or gone
                    found[rank] = json.loads((run[0] / str(rank)).read_text())
        return found


def _sign(folder: Path, world: World) -> Path:
    return folder / str(world.rank)
