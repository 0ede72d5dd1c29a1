"""Planner: from what is known of the samples to what an epoch trains, how often and how weighted.

View -> policy -> select -> merge. Every rank plans for the samples it owns; mask and draws are the
same on all of them, weights stay with their owners. It knows nothing of batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import Draws, KeepMask, ScoreBook, merge, merge_draws, select
from hvdfilter.agreement.validate import validate
from hvdfilter.errors import InputError
from hvdfilter.filter.arguments import Arguments
from hvdfilter.policies import Plan, View


class Agreed(NamedTuple):
    """What an epoch trains, as all ranks agreed.

    draws: None where no sample is drawn more than once. weight: float32 [n] of the samples this
    rank owns, or None where none has a weight.
    """

    mask: KeepMask
    draws: Draws | None = None
    weight: NDArray[np.float32] | None = None


class Planner:
    """Has the policy plan an epoch from `book`, and the ranks agree on what it keeps."""

    def __init__(self, arguments: Arguments, book: ScoreBook) -> None:
        self._arguments, self._book = arguments, book

    def agree(self, epoch: int) -> Agreed:
        """Collective. What `epoch` trains.

        Raises `InputError`, on every rank, when the policy refuses to plan on one, or plans with
        weights or repeats that cannot be.
        """
        view, error = self.view(epoch), None
        try:
            plan = self._arguments.policy.plan(view)
        except InputError as refused:
            plan, error = view.everything(), refused
        blocks, collective = self._book.blocks, self._book.collective
        kept = select(plan.key, plan.keep, blocks, collective, groups=plan.groups, error=error)
        if plan.always is not None:
            kept |= plan.always
        given = {"weight": plan.weight is not None, "repeats": plan.repeats is not None}
        weight = repeats = error = None
        try:
            weight, repeats = _checked(plan, kept, view)
        except InputError as refused:
            error = refused
        validate({f"{name} given": int(there) for name, there in given.items()}, error, collective)
        if repeats is None:
            return Agreed(merge(kept, blocks, collective), weight=weight)
        draws = merge_draws(np.where(kept, repeats, 0), blocks, collective)
        once = len(draws.planes) == 1
        return Agreed(draws.mask, None if once else draws, weight)

    def view(self, epoch: int) -> View:
        """What the policy sees on this rank: the history of the samples it owns."""
        arguments, book = self._arguments, self._book
        rank = book.collective.rank
        start, stop = book.blocks.start(rank), book.blocks.stop(rank)
        return View(
            epoch=epoch,
            epochs=arguments.epochs,
            num_samples=arguments.num_samples,
            start=start,
            stop=stop,
            seed=arguments.seed,
            column=book.column,
            mean=book.mean,
            quantiles=book.quantiles,
            labels=None if arguments.labels is None else arguments.labels[start:stop],
            total=book.collective.allreduce,
            before=book.collective.exscan,
        )


def _checked(
    plan: Plan, kept: NDArray[np.bool_], view: View
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Weight and repeats of a plan, of this rank's block, or `InputError` for the first bad one."""
    weight, repeats = plan.weight, plan.repeats
    for name, given, kinds in (("weight", weight, "f"), ("repeats", repeats, "iu")):
        if given is not None and (given.shape != kept.shape or given.dtype.kind not in kinds):
            what = "integers" if kinds == "iu" else "floats"
            raise InputError(
                f"the plan's {name} must be {what} of shape {kept.shape}, one for each sample that "
                f"this rank owns, not {given.dtype} {given.shape}"
            )
    if repeats is not None:
        _refuse("repeats", kept & ~((repeats >= 0) & (repeats < 1 << 31)), repeats, view)
        kept, repeats = kept & (repeats > 0), repeats.astype(np.int64)
    if weight is not None:
        _refuse("weight", kept & ~((weight >= 0) & (weight < np.inf)), weight, view)
        weight = weight.astype(np.float32, copy=False)
    return weight, repeats


def _refuse(name: str, bad: NDArray[np.bool_], values: NDArray[Any], view: View) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"the plan's {name} of sample {view.start + first} is {values[first]}: it must be "
            f"finite and not negative ({int(bad.sum())} such samples)"
        )
