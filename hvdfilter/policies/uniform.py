"""The policies that look at no score: everything, and the two random baselines.

Every table of results needs the random ones beside it, at equal steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hvdfilter.policies.base import Plan, Policy, View, check_keep, share_of
from hvdfilter.policies.registry import register


def budget(keep: float, num_samples: int) -> int:
    """How many of `num_samples` the fraction `keep` leaves: at least one."""
    return max(1, num_samples - share_of(1 - keep, num_samples))


@register
@dataclass(frozen=True)
class Full(Policy):
    """Keep every sample, every epoch."""

    name: ClassVar[str] = "full"
    cost: ClassVar[str] = "nothing beside the mask"

    def plan(self, view: View) -> Plan:
        """Everything."""
        return view.everything()


@register
@dataclass(frozen=True)
class Random(Policy):
    """Keep a fresh uniform share of the samples each epoch."""

    name: ClassVar[str] = "random"
    cost: ClassVar[str] = "nothing beside the mask"
    keep: float = 0.7
    scale_lr: bool = True

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)

    def plan(self, view: View) -> Plan:
        """A fresh random order, cut at the budget."""
        return Plan(view.random_keys(view.epoch), budget(self.keep, view.num_samples))


@register
@dataclass(frozen=True)
class StaticRandom(Policy):
    """Keep one uniform share of the samples, the same in all epochs.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): below on
    CIFAR-10 with 50 % hidden, undecided elsewhere.
    """

    name: ClassVar[str] = "static-random"
    cost: ClassVar[str] = "nothing beside the mask"
    keep: float = 0.7
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)

    def plan(self, view: View) -> Plan:
        """The random order of epoch 0, cut at the budget."""
        return Plan(view.random_keys(0), budget(self.keep, view.num_samples))
