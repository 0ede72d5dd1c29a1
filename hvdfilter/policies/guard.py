"""The noise guard: the hardest samples, often wrongly labelled, are no reason for anything.

CCS (Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", 2022,
arXiv:2210.15809) drops the hardest for good; here they are only not preferred, in any policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import Collective, statistics
from hvdfilter.policies.base import Plan, View

STREAM = 0x6A0D  # of the order among the guarded, apart from the streams of policies
_LOWEST = np.float32(-1e38)  # the least key of a sample that is not guarded


@dataclass(frozen=True)
class _Sums:
    """What the statistics need of a collective, and a view has."""

    allreduce: Callable[[NDArray[np.int64]], NDArray[np.int64]]


def hardest(view: View, beta: float) -> NDArray[np.bool_]:
    """Collective. Whose stored loss lies above the 1 - beta quantile of all ranks: bool [n].

    Losses equal to the quantile are not guarded, so it is at most a share beta, rounded up, of
    those observed; samples never observed are not among them.
    """
    loss, seen = view.column("loss"), view.column("age") >= 0
    known = np.ascontiguousarray(loss[seen & np.isfinite(loss)], np.float32)
    # Up by a rounding error: 1 - 0.3 in binary would leave a whole place out.
    q = min(1.0, float(np.nextafter(1 - beta, 2)))
    limit = statistics.quantiles(known, [q], _collective(view))[0]
    return np.asarray(seen & (loss > limit))


def without_evidence(view: View, hard: NDArray[np.bool_]) -> View:
    """The view, its means and quantiles taken over the samples that are not `hard`."""

    def mean(name: str) -> float:
        return statistics.mean(view.column(name)[~hard], _collective(view))

    def quantiles(name: str, q: Iterable[float]) -> NDArray[np.float32]:
        column = view.column(name)
        return statistics.quantiles(column[~hard & np.isfinite(column)], q, _collective(view))

    return replace(view, mean=mean, quantiles=quantiles)


def without_preference(plan: Plan, view: View, hard: NDArray[np.bool_]) -> Plan:
    """The plan, the `hard` in random order behind all others and not among the `always`."""
    last = (-1.5e38 * (1 + view.uniform(view.epoch, STREAM))).astype(np.float32)
    key = np.where(hard, last, np.maximum(plan.key, _LOWEST))
    return replace(plan, key=key, always=None if plan.always is None else plan.always & ~hard)


def _collective(view: View) -> Collective:
    return cast(Collective, _Sums(view.total))
