"""CCS: drop the hardest samples, then draw from all degrees of hardness alike.

Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023
(arXiv:2210.15809): the beta hardest are taken for mislabelled and dropped; the range of the other
scores is cut into 50 strata of equal width; the budget is shared equally over the strata, the
smallest first, and what one cannot use passes on; within a stratum the draw is uniform.
Differences: beta follows from the share pruned, where the authors search it for every set and
share; the strata span all ranks; a draw is a hash of the sample's id, so it can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import FIELDS, Field, average
from hvdfilter.agreement.statistics import quantiles
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, View, share_of
from hvdfilter.policies.forgetting import forgetting_counts
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static
from hvdfilter.policies.uniform import budget

# Of the share pruned: the share taken for mislabelled. 80 and 90 % are the authors' on ImageNet.
PRUNED, DROPPED = (0.0, 0.3, 0.8, 0.9, 1.0), (0.0, 0.0, 0.2, 0.3, 0.3)
# What the samples are ranked by: the fields, and the hardness they give.
_RANKINGS: dict[str, tuple[tuple[Field, ...], Callable[[Columns], NDArray[np.float32]]]] = {
    "aum": ((average("margin", "aum"),), lambda columns: -columns["aum"]),
    "el2n": ((average("grad_norm", "el2n"),), lambda columns: columns["el2n"]),
    "forgetting": ((FIELDS["forgetting"], FIELDS["learnt"]), forgetting_counts),
}


@register
@dataclass(frozen=True)
class Ccs(Static):
    """Drop the hardest, then keep as many samples of every stratum of hardness.

    keep=0.7, scores="", opening=10, scale_lr=False: as of every static policy. by="aum": hardness
    is a low mean margin over the opening epochs (the authors' choice), or "el2n", or "forgetting".
    beta=-1: share of all samples dropped as the hardest; below 0 it is 0 up to 30 % pruned, 0.2 at
    80 %, 0.3 from 90 % on, and linear between. strata=50.

    Never more is dropped than is pruned. Infinite scores (never learnt, never observed) have no
    place in equal widths: they belong to the hardest stratum, or the easiest if negative.

    Cost: as of every static policy, and seven small allreduces an epoch. Helps above 70 % pruned,
    where the policies that keep the hardest fail, and with noisy labels; below 50 % it is random.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): below on
    CIFAR-10, and on Fashion-MNIST at 50 %; undecided elsewhere.
    """

    name: ClassVar[str] = "ccs"
    source: ClassVar[str] = "Zheng et al. 2023, arXiv:2210.15809"
    cost: ClassVar[str] = "opening epochs of full training"
    by: str = "aum"
    beta: float = -1.0
    strata: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in _RANKINGS:
            there = ", ".join(_RANKINGS)
            raise InputError(
                f"policy 'ccs': by={self.by!r} is no score it knows (there are: {there})"
            )
        if not self.beta < 1:
            raise InputError(f"policy 'ccs': beta={self.beta} must be a fraction below 1")
        if not 1 <= self.strata <= 10_000:
            raise InputError(f"policy 'ccs': strata={self.strata} must be 1 to 10000")

    @property
    def fields(self) -> tuple[Field, ...]:
        """Those of the score that `by` names."""
        return _RANKINGS[self.by][0]

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The hardness."""
        return _RANKINGS[self.by][1](columns)

    def dropped(self, num_samples: int) -> int:
        """How many of the hardest are taken for mislabelled."""
        keep = budget(self.keep, num_samples)
        share = self.beta if self.beta >= 0 else float(np.interp(1 - self.keep, PRUNED, DROPPED))
        return min(share_of(share, num_samples), num_samples - keep)

    def choose(self, view: View, key: NDArray[np.float32]) -> Plan:
        """A random order within every stratum, cut at the stratum's budget."""
        dropped = view.largest(key, self.dropped(view.num_samples))
        stratum = self._strata(view, key, ~dropped)
        stratum[dropped] = self.strata  # a group of its own, of which nothing is kept
        sizes = view.total(np.bincount(stratum, minlength=self.strata + 1)[: self.strata])
        budgets = shares(sizes, budget(self.keep, view.num_samples))
        return Plan(view.random_keys(0), np.append(budgets, 0), groups=stratum)

    def _strata(
        self, view: View, key: NDArray[np.float32], rest: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The stratum of each sample, 0 easiest, by the range of the finite scores in `rest`."""
        finite = key[rest & np.isfinite(key)]
        low, high = quantiles(finite, (0, 1), view.ranks).astype(np.float64)
        place = np.where(key > 0, self.strata - 1, 0)  # of the infinite ones
        known = np.isfinite(key) & rest  # where all these are infinite, there is no range
        width = high - low if high > low else 1.0
        place[known] = ((key[known] - low) / width * self.strata).clip(0, self.strata - 1)
        return place.astype(np.int64)


def shares(sizes: NDArray[np.int64], keep: int) -> NDArray[np.int64]:
    """How much of `keep` each stratum gets: equal parts, the smallest stratum filled first."""
    budgets = np.zeros_like(sizes)
    for done, stratum in enumerate(np.argsort(sizes, kind="stable")):
        budgets[stratum] = min(sizes[stratum], keep // (len(sizes) - done))
        keep -= int(budgets[stratum])
    return budgets
