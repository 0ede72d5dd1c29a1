"""Minority repeats: the samples of a rare class are drawn more than once in an epoch.

Oversampling at random (Buda, Maki, Mazurowski, "A systematic study of the class imbalance problem
in convolutional neural networks", 2018, arXiv:1710.05381), but as evenly as whole draws allow, and
by what the policy keeps: a class that a policy thins out is filled up from what is left of it.
Weights stay as the policy gave them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.largest import largest
from hvdfilter.policies.base import Plan, View
from hvdfilter.policies.floor import class_sizes, kept_by

STREAM = 0x317  # of who is drawn once more, apart from the streams of policies
CAP = 10


def with_repeats(
    plan: Plan, view: View, labels: NDArray[Any], share: float, cap: int = CAP
) -> Plan:
    """Collective. The plan, with each class drawn at least `share` times as often as the largest.

    Of a class with d draws, where the largest has D, there are then min(ceil(share * D), cap * d).
    Each kept sample is drawn floor(that / d) times as often as before; the draws that are left go
    to its kept samples evenly, and by chance, another each epoch, where they don't go round. A
    class of which nothing is kept stays so. A negative label is of no class.
    """
    classes = labels >= 0
    number = class_sizes(view, labels[classes], "minority").size
    group = np.where(classes, labels, number)
    base = kept_by(plan, view) * (
        np.ones(labels.size, np.int64) if plan.repeats is None else plan.repeats.astype(np.int64)
    )
    mine = [_by_class(group, amount, number) for amount in (base, base > 0)]
    draws, kept = view.total(np.stack(mine))
    wanted = np.ceil(np.round(share * draws.max(initial=0), 6)).astype(np.int64)
    goal = np.where(draws > 0, np.maximum(draws, np.minimum(wanted, cap * draws)), 0)
    if (goal == draws).all():
        return plan
    times, left = np.divmod(goal, np.maximum(draws, 1))
    each, rest = np.divmod(left, np.maximum(kept, 1))
    poor = np.flatnonzero(goal > draws)
    place = np.full(number + 1, poor.size)  # of a class among the poor; the last: of no such class
    place[poor] = np.arange(poor.size)
    among = np.where(base > 0, place[group], poor.size)
    chance = view.random_keys(view.epoch, STREAM)
    once_more = largest(chance, np.append(rest[poor], 0), among, view.total, view.before)
    factor, more = np.append(times[poor], 1), np.append(each[poor], 0)
    repeats = np.where(base > 0, base * factor[among] + more[among] + once_more, base)
    return replace(plan, repeats=repeats)


def _by_class(group: NDArray[Any], amount: NDArray[Any], number: int) -> NDArray[np.int64]:
    """The sum of `amount` over the samples of each class; what is of no class is left out."""
    sums = np.bincount(group, weights=amount, minlength=number + 1)[:number]
    return np.rint(sums).astype(np.int64)
