"""Meter: how fast a run goes, and when it will be done. It reads a clock, on rank 0, and no more.

Time left is what the last epochs took, all of their parts included, times those that are to come;
in the first epoch, what it has taken so far over the share of its steps that is done. Epochs that
grow shorter make it too long rather than too short.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer

_NOWHERE = ("", math.inf)  # before any step of an epoch
RECENT = 3  # epochs of each run whose mean stands for those to come


@dataclass(frozen=True)
class Now:
    """Where a run is. epoch: counted from 0, of `epochs`; step: how many of `steps` are done.

    turn: whose turn it is, where runs take turns. rate: samples of all ranks a second, over the
    last moments. loss: mean of this rank's samples of the epoch so far. accuracy: on the test set
    after the epoch before; kept: share of the set that this epoch trains. left: seconds until all
    is over. NaN where it is not known yet.
    """

    turn: str
    epoch: int
    epochs: int
    step: int
    steps: int
    rate: float
    loss: float
    accuracy: float
    kept: float
    left: float


class Meter:
    """Of one job, whose runs may take turns."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}  # epochs left, by run
        self._epochs: dict[str, int] = {}  # of those that have begun, in all
        self._took: deque[float] = deque()
        self._accuracy: dict[str, float] = {}
        self._started = self._mark = time.monotonic()
        self._marked = self._resumed = 0
        self._of = _NOWHERE  # whose step was the last, and which
        self._rate = math.nan

    def expect(self, turn: str, epochs: int) -> None:
        """A run of so many epochs is to come."""
        self._turns[turn] = epochs

    def begin(self, turn: str, epochs: int, epoch: int = 0, step: int = 0) -> None:
        """A run of so many epochs joins in. epoch, step: where in them it goes on."""
        self._turns[turn], self._epochs[turn], self._resumed = epochs - epoch, epochs, step
        running = sum(left > 0 for left in self._turns.values())
        self._took = deque(self._took, maxlen=RECENT * max(1, running))
        self._started = time.monotonic()

    def step(self, at: float, turn: str, step: int) -> None:
        """So many steps of an epoch are done, at this second."""
        if self._of[0] != turn or step <= self._of[1]:  # another's turn, or another epoch
            self._mark, self._marked = at, step
        self._of = turn, step

    def now(self, run: Trainer, turn: str, step: int, steps: int, at: float) -> Now:
        """Where the run is, and from here on the moments that the next rate is of."""
        done = step - self._marked
        if done and at > self._mark:
            samples = done * run.batch_size * run.world.size
            self._rate = samples / (at - self._mark)
            self._mark, self._marked = at, step
        left = self._left(step / steps, self._resumed / steps, at)
        return self._now(run, turn, step, steps, run.running_loss(), left)

    def epoch(self, run: Trainer, turn: str, record: dict[str, Any]) -> Now:
        """An epoch has ended, with this record."""
        at = time.monotonic()
        steps, loss = int(record["steps"]), float(record["train_loss"])
        # An epoch that was resumed took longer in all, by the steps that lay behind it.
        self._took.append((at - self._started) * steps / max(1, steps - self._resumed))
        self._started, self._resumed = at, 0
        self._turns[turn] -= 1
        self._accuracy[turn] = float(record.get("test_accuracy", math.nan))
        self._of = _NOWHERE
        seconds = record["seconds"].get("training", 0.0)
        self._rate = record["kept"] / seconds if seconds else math.nan
        return self._now(run, turn, steps, steps, loss, self._left(0.0, 0.0, at), record["epoch"])

    def _now(
        self,
        run: Trainer,
        turn: str,
        step: int,
        steps: int,
        loss: float,
        left: float,
        epoch: int | None = None,
    ) -> Now:
        return Now(
            turn=turn,
            epoch=run.epoch if epoch is None else epoch,
            epochs=self._epochs[turn],
            step=step,
            steps=steps,
            rate=self._rate,
            loss=loss,
            accuracy=self._accuracy.get(turn, math.nan),
            kept=run.filter.trained / run.filter.num_samples,
            left=left,
        )

    def _left(self, share: float, resumed: float, at: float) -> float:
        """Seconds. share: of the epoch under way that is done; resumed: and was, at the start."""
        to_come = sum(self._turns.values())
        if self._took:
            return max(0.0, fmean(self._took) * (to_come - share))
        done = share - resumed
        return (at - self._started) / done * (to_come - share) if done > 0 else math.nan
