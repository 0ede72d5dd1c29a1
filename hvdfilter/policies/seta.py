"""SeTa: a random share of the samples, in a window of loss groups that slides from easy to hard.

Zhou et al., "Scale Efficient Training for Large Datasets", CVPR 2025, arXiv:2503.13385. Each epoch
a random share 1 - r is taken; losses are put into groups by 1-D k-means, easy to hard, and only
round(groups * scale) neighbouring groups are trained, one group further each epoch and from the
start again after the hardest. The last 1 - delta of the run trains a random share 1 - r of
everything (a partial annealing).

Different from the public code: k-means runs on one histogram of the last losses of all ranks, with
a start that is not random, so every rank has the same groups without a common random state; it sees
all samples rather than the random share, which is the same but for noise; a sample never observed
is in every window instead of having an invented loss of 3, and there may be fewer distinct losses
than groups. A sample outside the window keeps its last loss until it is trained again: there is no
re-scoring pass. Losses are not weighed.

Cost: three histograms and sums of 512 KiB and of one number over the ranks. It saves most of the
dynamic policies for a given r, as the window hides whole groups; how much depends on how the losses
spread, so set `scale` by the fraction hidden that a run reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError
from hvdfilter.policies.annealing import anneals
from hvdfilter.policies.base import Plan, Policy, View, check_fraction
from hvdfilter.policies.histogram import histogram, kmeans
from hvdfilter.policies.registry import register
from hvdfilter.policies.uniform import budget


@register
@dataclass(frozen=True)
class SeTa(Policy):
    """Train a random share of a window of loss groups that slides from easy to hard.

    r: share dropped at random. groups: of k-means. scale: size of the window, as a fraction of the
    groups. delta: part of the run with a window. scale_lr: train at lr / (1 - F*).

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): undecided on all
    three sets.
    """

    name: ClassVar[str] = "seta"
    source: ClassVar[str] = "Zhou et al. 2025, arXiv:2503.13385"
    cost: ClassVar[str] = "3 histograms, a sum of 512 KiB over the ranks"
    columns: ClassVar[tuple[str, ...]] = ("loss",)
    r: float = 0.1
    groups: int = 10
    scale: float = 0.5
    delta: float = 0.875
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check_fraction(self.name, "r", self.r, one=False)
        check_fraction(self.name, "scale", self.scale, zero=False)
        check_fraction(self.name, "delta", self.delta)
        if not 1 <= self.groups <= 1000:
            raise InputError(f"policy 'seta': groups={self.groups} must lie in [1, 1000]")

    def plan(self, view: View) -> Plan:
        """A random order of what lies in the window, cut at its share."""
        inside = np.ones(view.stop - view.start, np.bool_)
        if not anneals(view.epoch, view.epochs, self.delta):
            inside = self._window(view)
        count = int(view.total(np.array([inside.sum()], np.int64))[0])
        key = np.where(inside, view.random_keys(view.epoch), np.float32(-np.inf))
        return Plan(key, budget(1 - self.r, count))

    def _window(self, view: View) -> NDArray[np.bool_]:
        """Whether each sample lies in the window of this epoch, or was never observed."""
        losses = histogram(view, "loss")
        group = kmeans(losses, self.groups)
        number = int(group.max(initial=-1)) + 1
        size = max(1, round(number * self.scale))
        first = view.epoch % (number - size + 1) if number else 0
        bins = (group >= first) & (group < first + size)
        # The last one is for where = -1, a sample never observed.
        return np.append(bins, True)[losses.where]
