"""`--profile`: what rank 0 does in a few steps, by torch's profiler and Horovod's timeline.

Leaves RUN/profile.json, one Chrome trace of both with the parts that costs.py names. The first
steps are left out, for they pay for what happens once. Horovod can only be told to write a timeline
later if it knows at its start (`HOROVOD_TIMELINE=DYNAMIC`), and its writer then keeps a core of
rank 0 busy for as long as the job lasts: a run that is profiled is not one to take times of.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hvdfilter.costs import Costs
from hvdfilter.telemetry.trace import merge
from hvdfilter.training import ring
from hvdfilter.training.following import Follower

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer

FILE, SKIPPED = "profile.json", 3


class Profile(Follower):
    """steps: how many are profiled. To be made before Horovod starts.

    Of several runs by turns, the first.
    """

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._skip = SKIPPED
        self._run: Trainer | None = None
        self._profiler: profile | None = None
        self._timeline: Path | None = None
        os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would print its start and stop

    def begin(self, run: Trainer, turn: str) -> None:
        """On rank 0, wait for the first steps to pass."""
        if self._run is None and run.world.rank == 0:
            self._run = run

    def step(self, run: Trainer, step: int, steps: int) -> None:
        """Start, count, and stop."""
        if run is not self._run or self._left <= 0:
            return
        if self._profiler is None:
            self._skip -= 1
            if self._skip <= 0:
                self._start()
            return
        self._left -= 1
        if self._left == 0:
            self._stop()

    def end(self) -> None:
        """A run that ends before leaves what there is."""
        if self._profiler is not None:
            self._stop()

    def _start(self) -> None:
        assert self._run is not None
        kinds = [ProfilerActivity.CPU]
        if self._run.world.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        timeline = self._run.folder.path / "horovod-timeline.json"
        if ring.start_timeline(timeline, self._run.world):
            self._timeline = timeline
        self._profiler = profile(activities=kinds)
        self._profiler.start()
        Costs.marks.append(record_function)

    def _stop(self) -> None:
        assert self._run is not None and self._profiler is not None
        Costs.marks.remove(record_function)
        until = time.time() * 1e6
        if self._run.world.device.type == "cuda":
            torch.cuda.synchronize()
        self._profiler.stop()
        if self._timeline is not None:
            ring.stop_timeline()
        folder = self._run.folder.path
        raw = folder / "profile-torch.json"
        try:
            self._profiler.export_chrome_trace(str(raw))
            merge(raw, self._timeline, until, folder / FILE)
        except (OSError, ValueError) as failed:  # a full disk; the run is worth more
            print(f"hvdfilter: warning: no {FILE}: {failed}", file=sys.stderr, flush=True)
        for path in (raw, self._timeline):
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        self._profiler, self._left = None, 0
