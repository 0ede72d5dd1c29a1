"""InfoBatch: drop learnt samples at random and weigh up those of them that stay.

Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024,
arXiv:2303.04947. The score is a sample's last loss. Of the samples that score low a random share is
kept and weighs 1 / share, all others are kept at weight 1, so the expected gradient is that of the
whole set. The last 1 - delta of the run trains everything at weight 1, which removes what variance
the sampling leaves.

Different from the public code: weights are made anew for each epoch, so that none of 2 is left
when annealing starts, whatever the number of epochs; each low sample is kept by a coin of its own
(the paper's rule) rather than a floor of their number, so the weight is exactly the inverse of the
probability; a sample never observed is kept at weight 1 and is not part of the mean, instead of
having an invented score. A dropped sample keeps its last loss until it is trained again, as in the
paper: there is no re-scoring pass.

Cost: one sum over the ranks (`infobatch`) or three small histograms (`infobatch-quantile`).
It helps where many samples are learnt early and epochs are many. It hurts little anywhere, for it
is unbiased, but saves no more than r of the samples below the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError
from hvdfilter.policies.annealing import anneals
from hvdfilter.policies.base import Plan, Policy, View, check_fraction
from hvdfilter.policies.registry import register


def thinned(view: View, share: NDArray[np.float64]) -> Plan:
    """Keep each sample with probability `share` [n] of its own, at weight 1 / share."""
    kept = view.uniform(view.epoch) < share  # a share of 1 is always kept: the numbers are below 1
    nothing = np.zeros(share.size, np.float32)
    return Plan(nothing, 0, always=kept, weight=(1 / share).astype(np.float32))


@register
@dataclass(frozen=True)
class InfoBatch(Policy):
    """Drop a random share of the samples below the mean loss, weigh up the rest of them.

    r: share of the samples below the mean that is dropped. delta: part of the run that drops
    samples; all are trained at weight 1 after it.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): above on
    CIFAR-10, undecided on digits and Fashion-MNIST.
    """

    name: ClassVar[str] = "infobatch"
    source: ClassVar[str] = "Qin et al. 2024, arXiv:2303.04947"
    cost: ClassVar[str] = "one sum over the ranks"
    makes_up: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("loss",)
    r: float = 0.5
    delta: float = 0.875

    def __post_init__(self) -> None:
        check_fraction(self.name, "r", self.r, one=False)
        check_fraction(self.name, "delta", self.delta)

    def plan(self, view: View) -> Plan:
        """A coin for each sample whose last loss is below the mean of all."""
        if anneals(view.epoch, view.epochs, self.delta):
            return view.everything()
        # As a float64, so that the mean is not rounded to the column's float32. It is nan, and no
        # loss below it, where nothing was observed; a loss never observed is +inf.
        below = view.column("loss") < np.float64(view.mean("loss"))
        return thinned(view, np.where(below, 1 - self.r, 1.0))


@register
@dataclass(frozen=True)
class InfoBatchQuantile(Policy):
    """Drop more of the easiest samples, fewer of the middle, none of the hardest, by loss quantile.

    low, high: the quantiles of the loss that part easy, middle and hard. r_low, r: shares dropped
    of the easy and of the middle ones. delta: as in `infobatch`. A sample exactly at a quantile
    belongs to the harder side.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): below on digits,
    undecided on Fashion-MNIST and CIFAR-10.
    """

    name: ClassVar[str] = "infobatch-quantile"
    source: ClassVar[str] = "Qin et al. 2024, arXiv:2303.04947"
    cost: ClassVar[str] = "three small histograms over the ranks"
    makes_up: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("loss",)
    r: float = 0.5
    r_low: float = 0.75
    low: float = 0.2
    high: float = 0.85
    delta: float = 0.875

    def __post_init__(self) -> None:
        check_fraction(self.name, "r", self.r, one=False)
        check_fraction(self.name, "r_low", self.r_low, one=False)
        check_fraction(self.name, "delta", self.delta)
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(
                f"policy 'infobatch-quantile': low={self.low} and high={self.high} must be "
                "quantiles in [0, 1], low not above high"
            )

    def plan(self, view: View) -> Plan:
        """A coin for each sample, its probability by the quantile of its last loss."""
        if anneals(view.epoch, view.epochs, self.delta):
            return view.everything()
        loss = view.column("loss")
        low, high = view.quantiles("loss", (self.low, self.high))
        share = np.select([loss < low, loss < high], [1 - self.r_low, 1 - self.r], 1.0)
        return thinned(view, share)
