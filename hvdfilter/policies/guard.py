"""The noise guard: the hardest samples, often wrongly labelled, are no reason for anything.

CCS (Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", 2022,
arXiv:2210.15809) drops the hardest for good; here they are only not preferred, in any policy: it
sees them as if they had never been observed, and where it would keep those, chance decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import statistics
from hvdfilter.agreement.fields import Field, resolve
from hvdfilter.policies.base import Plan, View

STREAM = 0x6A0D  # of the order among the guarded, apart from the streams of policies
_LOWEST = np.float32(-1e38)  # the least key of a sample that is not guarded


def hardest(view: View, beta: float) -> NDArray[np.bool_]:
    """Collective. Whose stored loss lies above the 1 - beta quantile of all ranks: bool [n].

    Losses equal to the quantile are not guarded, so it is at most a share beta, rounded up, of
    those observed; samples never observed are not among them.
    """
    loss, seen = view.column("loss"), view.column("age") >= 0
    known = np.ascontiguousarray(loss[seen & np.isfinite(loss)], np.float32)
    # Up by a rounding error: 1 - 0.3 in binary would leave a whole place out.
    q = min(1.0, float(np.nextafter(1 - beta, 2)))
    limit = statistics.quantiles(known, [q], view.ranks)[0]
    return np.asarray(seen & (loss > limit))


def without_evidence(view: View, hard: NDArray[np.bool_], columns: tuple[str | Field, ...]) -> View:
    """The view in which the `hard` were never observed: of no column, mean or quantile.

    columns: those of the policy that will look at it.
    """
    initial = {field.name: field.initial for field in resolve(columns)}

    def column(name: str) -> NDArray[Any]:
        stored = view.column(name)
        hidden = hard.reshape(-1, *[1] * (stored.ndim - 1))
        return np.where(hidden, np.asarray(initial.get(name, -1), stored.dtype), stored)

    def mean(name: str) -> float:
        return statistics.mean(column(name)[~hard], view.ranks)

    def quantiles(name: str, q: Iterable[float]) -> NDArray[np.float32]:
        values = column(name)
        return statistics.quantiles(values[~hard & np.isfinite(values)], q, view.ranks)

    return replace(view, column=column, mean=mean, quantiles=quantiles)


def count_kept(plan: Plan | None, hard: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the others are `always` kept, and how many there are: to be summed over ranks."""
    always = None if plan is None else plan.always
    kept = 0 if always is None else np.count_nonzero(always & ~hard)
    return np.array([kept, np.count_nonzero(~hard)], np.int64)


def without_preference(
    plan: Plan, view: View, hard: NDArray[np.bool_], counted: NDArray[np.int64]
) -> Plan:
    """The plan, the `hard` in random order behind all others and not among the `always`.

    Where the plan keeps by `always` alone, they are kept by a coin, as often as the others: the
    share of `counted`, `count_kept` summed over the ranks. Draws by `repeats` are left as they are:
    of a sample never observed no policy draws more than of the mean one.
    """
    if plan.repeats is not None:
        return plan
    chance = view.uniform(view.epoch, STREAM)
    last = (-1.5e38 * (1 + chance)).astype(np.float32)
    key = np.where(hard, last, np.maximum(plan.key, _LOWEST))
    always = plan.always
    if always is not None:
        share = counted[0] / max(1, counted[1]) if np.ndim(plan.keep) == 0 == plan.keep else 0.0
        always = np.where(hard, chance < share, always)
    return replace(plan, key=key, always=always)
