"""Planner: from what is known of the samples to what an epoch trains, how often and how weighted.

View -> policy -> select -> merge. Every rank plans for the samples it owns; mask and draws are the
same on all of them, weights stay with their owners. It knows nothing of batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import (
    Draws,
    KeepMask,
    ScoreBook,
    Strata,
    merge,
    merge_draws,
    merge_strata,
    select,
)
from hvdfilter.agreement.strata import MOST
from hvdfilter.agreement.validate import validate
from hvdfilter.errors import InputError
from hvdfilter.filter.arguments import Arguments
from hvdfilter.policies import Plan, Policy, View


class Agreed(NamedTuple):
    """What an epoch trains, as all ranks agreed.

    draws: None where no sample is drawn more than once and none has a stratum. weight: float32 [n]
    of the samples this rank owns, or None where none has a weight.
    """

    mask: KeepMask
    draws: Draws | Strata | None = None
    weight: NDArray[np.float32] | None = None


def unfit(agreed: Agreed, policy: Policy, epoch: int, streams: bool) -> InputError | None:
    """What is wrong with what an epoch is to train, if anything.

    streams: whether samples are taken from a stream too, which has an order of its own.
    """
    if agreed.mask.count == 0:
        return InputError(f"policy {policy} keeps no sample in epoch {epoch}")
    if streams and (agreed.draws or agreed.weight is not None):
        return InputError(
            f"policy {policy.name} repeats or weighs samples, which a stream can't: "
            "take another policy, or draw from filt.sampler()"
        )
    return None


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
        parts = ("weight", "repeats", "strata")
        given = {f"{part} given": int(getattr(plan, part) is not None) for part in parts}
        weight = repeats = strata = error = None
        try:
            weight, repeats, strata = _checked(plan, kept, view)
        except InputError as refused:
            error = refused
        validate(given, error, collective)
        drawn: KeepMask | Draws
        if repeats is None:
            drawn = merge(kept, blocks, collective)
        else:
            draws = merge_draws(np.where(kept, repeats, 0), blocks, collective)
            drawn = draws if len(draws.planes) > 1 else draws.mask
        mask = drawn.mask if isinstance(drawn, Draws) else drawn
        if strata is not None:
            return Agreed(mask, merge_strata(drawn, strata, collective), weight)
        return Agreed(mask, drawn if isinstance(drawn, Draws) else None, weight)

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
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None, NDArray[np.uint16] | None]:
    """Weight, repeats and strata of a plan, or `InputError` for the first bad one."""
    weight, repeats, strata = plan.weight, plan.repeats, plan.strata
    kinds_of = {"weight": "f", "repeats": "iu", "strata": "iu"}
    for (name, kinds), given in zip(kinds_of.items(), (weight, repeats, strata), strict=True):
        if given is not None and (given.shape != kept.shape or given.dtype.kind not in kinds):
            what = "integers" if kinds == "iu" else "floats"
            raise InputError(
                f"the plan's {name} must be {what} of shape {kept.shape}, one for each sample that "
                f"this rank owns, not {given.dtype} {given.shape}"
            )
    if repeats is not None:
        bad = kept & ~((repeats >= 0) & (repeats < 1 << 31))
        _refuse("repeats", bad, repeats, view, "finite and not negative")
        kept, repeats = kept & (repeats > 0), repeats.astype(np.int64)
    if weight is not None:
        bad = kept & ~((weight >= 0) & (weight < np.inf))
        _refuse("weight", bad, weight, view, "finite and not negative")
        weight = weight.astype(np.float32, copy=False)
    if strata is not None:
        bad = kept & ~((strata >= 0) & (strata < MOST))
        _refuse("strata", bad, strata, view, f"in [0, {MOST})")
        strata = np.where(kept, strata, 0).astype(np.uint16)
    return weight, repeats, strata


def _refuse(
    name: str, bad: NDArray[np.bool_], values: NDArray[Any], view: View, wanted: str
) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"the plan's {name} of sample {view.start + first} is {values[first]}: it must be "
            f"{wanted} ({int(bad.sum())} such samples)"
        )
