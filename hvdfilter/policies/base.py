"""What a policy is: it turns the history of one rank's samples into keys and a budget.

A policy never sees a sample it does not own, and all it learns of the others is a mean or a
quantile. It states which scores it needs, and `plan` returns a `Plan` from which the agreement
makes the global mask. Because keys are a function of (seed, epoch, id, score) alone, the mask is
the same on any number of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import random
from hvdfilter.agreement.largest import largest
from hvdfilter.agreement.statistics import Sums
from hvdfilter.errors import InputError


@dataclass(frozen=True)
class Plan:
    """Which samples of this rank's block to keep: the globally `keep` largest keys, or `always`.

    key: float32 [n], larger is more important; no NaN. keep: the global budget, 0..N, the same
    on every rank. always: bool [n] or None, samples kept whatever their key. groups: int [n] or
    None; with them `keep` is an int64 [G] of one budget a group, such as one a class.

    weight: float32 [n] or None, what a sample's loss is multiplied with wherever it is trained;
    finite and not negative. Those of samples that are not kept are not looked at. repeats: int [n]
    or None, how often a kept sample is drawn in the epoch; 0 hides it after all.

    strata: int [n] in [0, 65536) or None, which part of the set a sample belongs to: every batch
    then holds of each part nearly its share of the epoch's draws.
    """

    key: NDArray[np.float32]
    keep: int | NDArray[np.int64]
    always: NDArray[np.bool_] | None = None
    groups: NDArray[Any] | None = None
    weight: NDArray[np.float32] | None = None
    repeats: NDArray[Any] | None = None
    strata: NDArray[Any] | None = None


def _of_one_rank(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return values


@dataclass(frozen=True)
class _Ranks:
    """A view's sum over the ranks, under the name that it has in a collective."""

    allreduce: Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class View:
    """What a policy sees when it plans an epoch: the samples this rank owns.

    `column(name)` gives the stored history of the block, `float32 [n]` or `bool [n]`; only the
    columns the policy lists in `columns` are there. labels: int [n], or None where the filter was
    given none.

    Over the samples of all ranks, and so collective, a plan calls them on every rank or on none:
    `mean(name)` and `quantiles(name, q)` of a column; `total(values)`, the sum over the ranks of an
    int64 array of one shape everywhere, such as counts; `before(values)`, the sum over the ranks
    below this one. Integers alone, for a sum of floats depends on how samples are spread.
    """

    epoch: int
    epochs: int
    num_samples: int
    start: int
    stop: int
    seed: int
    column: Callable[[str], NDArray[Any]]
    mean: Callable[[str], float]
    quantiles: Callable[[str, Iterable[float]], NDArray[np.float32]]
    labels: NDArray[Any] | None = None
    total: Callable[[NDArray[np.int64]], NDArray[np.int64]] = _of_one_rank
    before: Callable[[NDArray[np.int64]], NDArray[np.int64]] = np.zeros_like

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of the block, int64 [n]."""
        return np.arange(self.start, self.stop, dtype=np.int64)

    def everything(self) -> Plan:
        """The plan that keeps all samples."""
        return Plan(np.zeros(self.stop - self.start, np.float32), self.num_samples)

    @property
    def ranks(self) -> Sums:
        """All ranks, as `hvdfilter.agreement.statistics` wants them."""
        return _Ranks(self.total)

    def largest(self, key: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
        """Collective. Which of this rank's samples have the `count` largest keys of all ranks.

        key: float32 [n], no NaN. Ties are taken in order of id. Returns bool [n].
        """
        one = np.zeros(len(key), np.int32)
        return largest(key, np.array([count], np.int64), one, self.total, self.before)

    def random_keys(self, epoch: int, stream: int = 0) -> NDArray[np.float32]:
        """A uniformly random order of the samples, the same for any number of ranks.

        stream: another one, independent of the first.
        """
        return random.uniform_keys(self.seed, epoch, self.ids, stream)

    def uniform(self, epoch: int, stream: int = 0) -> NDArray[np.float64]:
        """A uniform number in [0, 1) for each sample, the same for any number of ranks."""
        return random.uniform01(self.seed, epoch, self.ids, stream)


class Policy(ABC):
    """A rule for what to keep. Subclasses are frozen dataclasses: their fields are the options.

    name: what it is called in commands and sentences; the class's own where none is given.
    source, cost: who published it, and what it costs beside training, in a few words.
    columns: names of the score-book columns it plans from, or `Field` objects (none: it needs no
    scores).
    own_scores: observed values that `filt.loss` does not make, and what does: `filt.observe` brings
    them after the backward. What it notes under the same name is another value.
    makes_up: its weights stand for what is hidden, so a kept sample's mean weight is N / kept.
    one_keep: its option `keep` must be the same in all epochs.
    rescores: hidden samples want a forward-only pass in eval mode at the end of the epoch.
    scale_lr: multiply the rate by 1 / (1 - F*), F* the fraction really hidden.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    columns: ClassVar[tuple[str, ...]] = ()
    own_scores: ClassVar[Mapping[str, str]] = MappingProxyType({})
    rescores: ClassVar[bool] = False
    one_keep: ClassVar[bool] = False
    makes_up: ClassVar[bool] = False
    scale_lr: bool = False

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def plan(self, view: View) -> Plan:
        """The plan of epoch `view.epoch`; called on every rank with its own block."""


def check_fraction(
    policy: str, option: str, value: float, *, zero: bool = True, one: bool = True
) -> None:
    """Refuse a share outside [0, 1]; without `zero` or `one`, that end too."""
    inside = (value >= 0 if zero else value > 0) and (value <= 1 if one else value < 1)
    if not inside:
        span = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise InputError(f"policy {policy!r}: {option}={value} must be a fraction in {span}")


def check_keep(policy: str, keep: float) -> None:
    """Refuse a keep fraction outside (0, 1]."""
    if not 0 < keep <= 1:
        raise InputError(
            f"policy {policy!r}: keep={keep} must be a fraction in (0, 1], "
            "e.g. keep=0.7 to train on 70 % of the samples"
        )


def share_of(fraction: float, num_samples: int) -> int:
    """floor(fraction * num_samples), where a product a rounding error short of a whole is whole."""
    return int(round(fraction * num_samples, 6))


def option_names(policy: type[Policy]) -> list[str]:
    """The options a policy takes, in the order of their declaration."""
    return [option.name for option in fields(policy)]  # type: ignore[arg-type]
