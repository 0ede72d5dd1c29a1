"""Planner: from what is known of the samples to the mask of an epoch.

View -> policy -> select -> merge. Every rank plans for the samples it owns; the mask is the same on
all of them. It keeps no mask and knows nothing of batches.
"""

from __future__ import annotations

from hvdfilter.agreement import KeepMask, ScoreBook, merge, select
from hvdfilter.errors import InputError
from hvdfilter.filter.arguments import Arguments
from hvdfilter.policies import View


class Planner:
    """Has the policy plan an epoch from `book`, and the ranks agree on what it keeps."""

    def __init__(self, arguments: Arguments, book: ScoreBook) -> None:
        self._arguments, self._book = arguments, book

    def agree(self, epoch: int) -> KeepMask:
        """Collective. The mask of `epoch`.

        Raises `InputError`, on every rank, when the policy refuses to plan on one.
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
        return merge(kept, blocks, collective)

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
