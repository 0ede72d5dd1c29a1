"""The class floor: at least a share of every class is kept, whatever the policy thinks of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.largest import largest
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, View

STREAM = 0xF10  # of the order among equal keys, apart from the streams of policies
_MOST_CLASSES = 1 << 24


def labels_of(view: View, policy: str, option: str) -> NDArray[Any]:
    """The labels of the block; `InputError` where there are none that `option` could count by."""
    if view.labels is None:
        raise InputError(
            f"policy {policy!r}: {option} needs labels: give them to Filter as labels=, "
            "one integer a sample"
        )
    if view.labels.dtype.kind not in "iu":
        raise InputError(
            f"policy {policy!r}: {option} needs integer labels, not {view.labels.dtype}"
        )
    return view.labels


def with_floor(plan: Plan, view: View, labels: NDArray[Any], share: float) -> Plan:
    """Collective. The plan, with what its own order would keep next of each class below the floor.

    Of each class c of n_c samples, at least ceil(share * n_c) are kept; those added are drawn once
    at weight 1. Order: `always`, then the key, then chance. A negative label is of no class.
    """
    classes = labels >= 0
    sizes = class_sizes(view, labels[classes], "class_floor")
    kept = kept_by(plan, view)
    have = view.total(np.bincount(labels[classes & kept], minlength=sizes.size).astype(np.int64))
    lack = np.maximum(np.ceil(np.round(share * sizes, 6)).astype(np.int64) - have, 0)
    poor = np.flatnonzero(lack)
    if not poor.size:
        return plan
    place = np.full(sizes.size + 1, poor.size)  # of a class among the poor; the last: of no class
    place[poor] = np.arange(poor.size)
    group = place[np.where(classes, labels, sizes.size)]
    lack = lack[poor]
    ties = view.random_keys(view.epoch, STREAM)
    added = np.zeros(labels.size, np.bool_)
    pools = [~kept]
    if plan.always is not None and plan.repeats is not None:  # some of them may not be drawn
        pools = [~kept & plan.always, ~kept & ~plan.always]
    for pool in pools:
        among, budget = np.where(pool, group, poor.size), np.append(lack, 0)
        taken = largest(plan.key, budget, among, view.total, view.before, ties)
        added |= taken
        if len(pools) > 1:
            lack -= view.total(np.bincount(group[taken], minlength=poor.size).astype(np.int64))
    return _added(plan, added)


def kept_by(plan: Plan, view: View) -> NDArray[np.bool_]:
    """Collective. What the agreement will keep by this plan: bool [n]."""
    keep = np.atleast_1d(np.asarray(plan.keep, np.int64))
    # What the agreement is about to refuse must not crash before it.
    groups = 0 if plan.groups is None else np.clip(plan.groups, 0, keep.size - 1)
    groups = np.broadcast_to(groups, plan.key.shape)
    kept = largest(plan.key, keep, groups, view.total, view.before)
    if plan.always is not None:
        kept |= plan.always
    return kept if plan.repeats is None else kept & (plan.repeats > 0)


def class_sizes(view: View, labels: NDArray[Any], option: str) -> NDArray[np.int64]:
    """Collective. How many samples each class has, on all ranks; int64 [a power of two].

    labels: int [n], none negative. Raises `InputError`, naming `option`, for labels too large to
    be classes.
    """
    # Sums alone: the largest label of all ranks is bounded by its number of binary digits.
    mine = int(labels.max(initial=0)).bit_length()
    digits = np.flatnonzero(view.total((np.arange(65) == mine).astype(np.int64)))[-1]
    most = 1 << int(digits)
    if most > _MOST_CLASSES:
        raise InputError(
            f"{option} needs labels that count the classes from 0, not as large as {most // 2}"
        )
    return view.total(np.bincount(labels, minlength=most).astype(np.int64))


def _added(plan: Plan, added: NDArray[np.bool_]) -> Plan:
    always = added if plan.always is None else plan.always | added
    weight, repeats = plan.weight, plan.repeats
    if weight is not None:
        weight = np.where(added, np.float32(1), weight)
    if repeats is not None:
        repeats = np.where(added, 1, repeats)
    return replace(plan, always=always, weight=weight, repeats=repeats)
