"""Bandits: a sample is an arm, its loss the reward; exploit the highest, explore the others.

Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", 2021,
arXiv:2111.12621. The reward of a sample is a moving average of its loss, renewed only when it is
trained: there is no re-scoring pass, and exploring is what renews the others.

`epsilon-greedy` keeps the (1 - epsilon) K highest and epsilon K of the others, uniformly. `ucb`
keeps the K highest of mean + c sqrt(ln(t) / n), t the epoch counted from 1 and n how often a sample
was observed, so that what was not looked at for long comes back.

Different from the public code: a sample never observed is kept, on top of the budget K = keep times
the samples observed, instead of starting at an invented loss; the bound of `ucb` is UCB1's, from
the number of observations, where that code adds a moving variance of the loss, which does not grow
while a sample is left out. The average is the field `loss_mean`, at rate 0.1.

Cost: `epsilon-greedy` three histograms, two sums and a scan over the ranks, `ucb` a sum, beside the
mask. They help at 50 % and more pruned, where dynamic random is the baseline to beat; wrong labels
keep the highest losses and are preferred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, Policy, View, check_fraction, check_keep, share_of
from hvdfilter.policies.registry import register
from hvdfilter.policies.uniform import budget


def seen_by_all(known: NDArray[np.bool_], view: View) -> int:
    """How many samples of all ranks are known; collective."""
    return int(view.total(np.array([known.sum()], np.int64))[0])


@register
@dataclass(frozen=True)
class EpsilonGreedy(Policy):
    """Keep the samples of highest average loss and a random share of the others.

    keep: fraction kept, K. epsilon: share of K that is drawn uniformly from the samples that are
    not among the highest. scale_lr: train at lr / (1 - F*).

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): above on digits
    and Fashion-MNIST at 50 %, undecided at 30 % and on CIFAR-10.
    """

    name: ClassVar[str] = "epsilon-greedy"
    source: ClassVar[str] = "Raju et al. 2021, arXiv:2111.12621"
    cost: ClassVar[str] = "3 histograms, 2 sums, 1 scan over the ranks"
    columns: ClassVar[tuple[str, ...]] = ("loss_mean",)
    keep: float = 0.7
    epsilon: float = 0.1
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        check_fraction(self.name, "epsilon", self.epsilon)

    def plan(self, view: View) -> Plan:
        """The highest by value, ties by id; then a random order of the others."""
        mean = view.column("loss_mean")
        known = np.isfinite(mean)
        seen = seen_by_all(known, view)
        if not seen:
            return view.everything()
        kept = budget(self.keep, seen)
        explored = share_of(self.epsilon, kept)
        highest = view.largest(np.where(known, mean, np.float32(-np.inf)), kept - explored)
        key = np.where(highest | ~known, np.float32(-np.inf), view.random_keys(view.epoch))
        return Plan(key, explored, always=highest | ~known)


@register
@dataclass(frozen=True)
class UCB(Policy):
    """Keep the samples of highest upper confidence bound of the loss.

    keep: fraction kept. c: weight of the bound, in units of the loss; 0 keeps the highest averages.
    scale_lr: train at lr / (1 - F*).

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): undecided on all
    three sets.
    """

    name: ClassVar[str] = "ucb"
    source: ClassVar[str] = "Raju et al. 2021, arXiv:2111.12621"
    cost: ClassVar[str] = "one sum over the ranks"
    columns: ClassVar[tuple[str, ...]] = ("loss_mean", "observations")
    keep: float = 0.7
    c: float = 1.0
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if not 0 <= self.c < math.inf:
            raise InputError(f"policy 'ucb': c={self.c} must be a finite number, 0 or more")

    def plan(self, view: View) -> Plan:
        """The highest bounds within the budget, and what was never observed."""
        mean = view.column("loss_mean")
        known = np.isfinite(mean)
        kept = budget(self.keep, max(1, seen_by_all(known, view)))
        times = np.maximum(view.column("observations"), 1).astype(np.float64)
        bound = mean + self.c * np.sqrt(math.log(view.epoch + 1) / times)
        key = np.where(known, bound, -np.inf).astype(np.float32)
        return Plan(key, kept, always=~known)
