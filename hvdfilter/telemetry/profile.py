"""`--profile`: what rank 0 does in a few steps, by torch's profiler and Horovod's timeline.

Leaves RUN/profile.json, one Chrome trace of both with the parts that costs.py names. The first
steps are left out, for they pay for what happens once; of a run that has no more, all but the last
are. A run that cannot be profiled says so and trains on. Horovod can only be told to write a
timeline later if it knows at its start (`HOROVOD_TIMELINE=DYNAMIC`), and its writer then keeps a
core of rank 0 busy for as long as the job lasts: take no times of a run that is profiled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hvdfilter.costs import Costs
from hvdfilter.errors import warn
from hvdfilter.installation import reason
from hvdfilter.telemetry.trace import merge
from hvdfilter.training import ring
from hvdfilter.training.following import Follower

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer

FILE, SKIPPED = "profile.json", 3


class Profile(Follower):
    """steps: how many are profiled. To be made before Horovod starts.

    Of several runs by turns, the first, and not the models of its opening. An elastic job's rank 0
    begins a run in each of its lives: the first with steps to see is the one.
    """

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._passed = 0
        self._run: Trainer | None = None
        self._profiler: profile | None = None
        self._timeline: Path | None = None
        os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would print its start and stop

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """On rank 0, wait for the first steps to pass."""
        opening = epochs < run.config.epochs
        if self._run is None and self._left > 0 and run.world.rank == 0 and not opening:
            self._run, self._passed = run, 0

    def step(self, run: Trainer, step: int, steps: int) -> None:
        """Start, count, and stop."""
        if run is not self._run or self._left <= 0:
            return
        if self._profiler is not None:
            self._left -= 1
            if self._left == 0:
                self._stop()
            return
        self._passed += 1
        to_come = steps - step + steps * (run.config.epochs - run.epoch - 1)
        if to_come and (self._passed >= SKIPPED or to_come == 1):
            self._start()

    def end(self) -> None:
        """A run that ends before leaves what there is."""
        if self._profiler is not None:
            self._stop()
        elif self._run is not None and self._left > 0:
            steps = f"{self._passed} step{'s' * (self._passed != 1)}"
            self._give_up(f"training ended after {steps}, and a run's first {SKIPPED} are left out")
        self._run = None

    def _start(self) -> None:
        assert self._run is not None
        kinds = [ProfilerActivity.CPU]
        if self._run.world.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        timeline = self._run.folder.path / "horovod-timeline.json"
        with self._trying():
            profiler = profile(activities=kinds)
            profiler.start()
            self._profiler = profiler
            Costs.marks.append(record_function)
            if ring.start_timeline(timeline, self._run.world):
                self._timeline = timeline

    def _stop(self) -> None:
        assert self._run is not None and self._profiler is not None
        Costs.marks.remove(record_function)
        folder, profiler = self._run.folder.path, self._profiler
        raw = folder / "profile-torch.json"
        self._profiler, self._left = None, 0
        with self._trying():
            until = time.time() * 1e6
            if self._run.world.device.type == "cuda":
                torch.cuda.synchronize()
            profiler.stop()
            if self._timeline is not None:
                with suppress(Exception):  # Horovod is gone: torch's part is there all the same
                    ring.stop_timeline()
            profiler.export_chrome_trace(str(raw))
            if missing := merge(raw, self._timeline, until, folder / FILE):
                warn(missing)
        for path in (raw, self._timeline):
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Whatever fails in torch, in Horovod or on a full disk: the run is worth more."""
        try:
            yield
        except Exception as failed:
            self._left = 0
            self._give_up(reason(failed))

    def _give_up(self, why: str) -> None:
        assert self._run is not None
        warn(f"there is no {FILE} in {self._run.folder.path}: {why}")
