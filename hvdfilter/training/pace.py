"""Pace: which share to train so that a run ends within its wall-clock budget. Arithmetic alone.

An epoch costs seconds for each sample trained, for each re-scored, and a fixed rest (agreement,
evaluation, checkpoint). Each is the median of the last epochs, the first one left out as soon as
there is another, for it pays for what happens once. It reads no clock and talks to no other rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

RECENT = (
    5  # epochs that a rate is the median of: fewer are noise, more miss a change of the machine
)
# Share trained at least, where the policy's keep does not say: published tables end at 70 % hidden,
# and a policy that scales the rate by what is hidden multiplies it by no more than 3.3.
SMALLEST = 0.3
ASSUMED_RESCORING = 0.35  # of a training pass over the same samples, until one was measured
TOLERANCE = 0.01  # of the budget; a prediction above it by less is no failure


@dataclass(frozen=True)
class Epoch:
    """What an epoch took on rank 0, in seconds, and the samples of all ranks it was spent on.

    whole: all of it, with the checkpoint of the epoch before. trained, rescored: samples. asked:
    the share that the policy was asked to hide; 0 where it was to train everything.
    """

    whole: float
    training: float
    rescoring: float
    trained: int
    rescored: int
    asked: float


@dataclass(frozen=True)
class Decision:
    """The share to keep next, and the seconds from the start at which training will end.

    met: whether that is within the budget.
    """

    keep: float
    predicted: float
    met: bool


@dataclass
class Pace:
    """How a run of `epochs` epochs over `num_samples` samples spends its budget.

    budget: seconds. least: the smallest share that may be kept. rescores: hidden samples cost a
    forward pass. trains_everything: whether an epoch does, whatever the share. measured: the epochs
    that have ended.
    """

    budget: float
    epochs: int
    num_samples: int
    least: float
    rescores: bool
    trains_everything: Callable[[int], bool]
    measured: list[Epoch] = field(default_factory=list)

    def decide(self, elapsed: float, closing: float) -> Decision:
        """For the epochs that are left, `elapsed` seconds after the start.

        closing: seconds that the run takes once its last epoch has ended.
        """
        recent = self.measured[1:][-RECENT:] or self.measured
        trained, rescored, rest = self._rates(recent)
        following = range(len(self.measured), self.epochs)
        pruned = sum(not self.trains_everything(epoch) for epoch in following)
        in_full = elapsed + closing + len(following) * (rest + trained * self.num_samples)
        # Seconds that hiding everything in the epochs that may hide would save.
        saving = pruned * (trained - rescored) * self.num_samples
        yields = self._yields(recent)
        over = in_full - self.budget
        hidden = 0.0
        if over > 0 and saving > 0:
            hidden = min(over / saving, (1 - self.least) * yields)
        predicted = in_full - saving * hidden
        keep = 1 - hidden / yields if yields > 0 else self.least
        if over <= 0:
            keep = 1.0
        met = predicted <= self.budget * (1 + TOLERANCE)
        return Decision(max(self.least, min(1.0, keep)), predicted, met)

    def _rates(self, recent: list[Epoch]) -> tuple[float, float, float]:
        """Seconds a sample trained, a sample re-scored, and an epoch besides."""
        trained = median(epoch.training / max(1, epoch.trained) for epoch in recent)
        passes = [e.rescoring / e.rescored for e in recent if e.rescored]
        rescored = ASSUMED_RESCORING * trained if self.rescores else 0.0
        if passes:
            rescored = median(passes)
        rest = median(e.whole - e.training - e.rescoring for e in recent)
        return trained, rescored, max(0.0, rest)

    def _yields(self, recent: list[Epoch]) -> float:
        """What a policy hides of what it may: some keep samples for reasons of their own."""
        shares = [1 - e.trained / self.num_samples for e in recent if e.asked > 0]
        asked = [e.asked for e in recent if e.asked > 0]
        return median(s / a for s, a in zip(shares, asked, strict=True)) if asked else 1.0
