"""Observer: scores batches, notes the scores by sample id, and finds the ids of bad rows.

Its errors are this rank's own: whoever calls it makes them every rank's. Only `exchange` is
collective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hvdfilter.agreement import ScoreBook
from hvdfilter.agreement.fields import resolve
from hvdfilter.errors import InputError
from hvdfilter.filter.given import (
    check_constant,
    check_losses,
    check_scores,
    lacking,
    to_classes,
    weigh_rows,
)
from hvdfilter.filter.held import Held
from hvdfilter.filter.ids import check_ids, check_range, name_ids, outside
from hvdfilter.filter.tally import Tally
from hvdfilter.filter.weights import Weights
from hvdfilter.policies import Policy
from hvdfilter.scoring.arguments import raise_bad_rows, scores_of
from hvdfilter.scoring.criterion import Criterion
from hvdfilter.scoring.deferred import DeferredCheck
from hvdfilter.scoring.layout import to_samples
from hvdfilter.scoring.scores import Scores


class Observer:
    """Notes scores in `book` where `policy` wants any: one that uses none costs no exchange.

    tally: told what is trained. weights: what the policy multiplies losses with.
    """

    def __init__(self, book: ScoreBook, tally: Tally, weights: Weights, policy: Policy) -> None:
        self._book, self._tally, self._policy = book, tally, policy.name
        self._weights = weights
        self._needed = frozenset(book.observed)
        # The others are for people, and no error where none arrives.
        fields = resolve(policy.columns)
        self._chosen_by = frozenset(name for field in fields for name in field.observed)
        self._held = Held(policy.name, policy.own_scores, self._needed)
        self._deferred = DeferredCheck()
        # How the last batch was scored, and so what is scored without training on it.
        self._criterion = Criterion()
        self._mixed: bool | None = None
        self._lacking: set[str] = set()

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        ids: Any,
        weight: Tensor | None,
        criterion: Criterion,
        mixed: bool | None,
        clean: Tensor | None,
    ) -> Tensor:
        """The mean cross entropy of a batch, differentiable, its scores noted, or those of `clean`.

        Without gradients, as in validation, nothing is noted and `ids` are not looked at.

        Raises `InputError`, naming the ids, for rows that cannot be scored; those that only a GPU
        knows of are told by `overdue`.
        """
        noted = torch.is_grad_enabled()
        if noted:
            self._check_held()
        rows, targets, each = to_classes(logits, labels)
        if noted:
            self._tally.check_open()
            ids = check_ids(ids, logits.shape[0], self._book.num_samples)
            weight, unknown = self._weighted(weight, ids, logits)
        try:
            loss, table = criterion.loss(rows, targets, weigh_rows(weight, logits, each))
            scored = table if clean is None else self._scored(clean, logits, labels, criterion)
        except InputError as refused:
            raise (name_ids(refused, ids, each) if noted else refused) from None
        if noted:
            self._criterion, self._mixed = criterion, mixed
            self._watch(ids, table, True, each, unknown)
            self._tally.add(ids)
            if targets.is_floating_point() if mixed is None else mixed:
                self._tally.withheld = True
            else:
                self._note(ids, scored, each)
        return loss

    def score(self, logits: Tensor, labels: Tensor, ids: Any) -> Scores:
        """The scores of a batch, one a sample, noted; scored and raising as the last `loss`."""
        if error := self.overdue():
            raise error
        rows, targets, each = to_classes(logits, labels)
        ids = check_ids(ids, logits.shape[0], self._book.num_samples)
        if targets.is_floating_point() and self._mixed is not False:
            raise InputError(
                "labels: a score by soft labels is noted only where filt.loss was told "
                "mixed=False, for that of mixed samples is the score of none."
            )
        try:
            table = self._criterion.score(rows, targets)
        except InputError as refused:
            raise name_ids(refused, ids, each) from None
        self._watch(ids, table, True, each)
        self._note(ids, table, each)
        scores = scores_of(table)
        return to_samples(scores, each)[0] if each > 1 else scores

    def update(
        self, losses: Tensor, ids: Any, weight: Tensor | None, scores: Mapping[str, Any]
    ) -> Tensor:
        """The weighted mean of per-sample losses [B], which are noted with `scores`, each [B].

        Without gradients nothing is noted. Raises `InputError` as `loss` does.
        """
        check_losses(losses, weight)
        noted = torch.is_grad_enabled()
        if noted:
            self._check_held()
            self._tally.check_open()
            ids = check_ids(ids, losses.shape[0], self._book.num_samples)
            check_scores(scores, losses.shape[0], self._held.own)
            weight, unknown = self._weighted(weight, ids, losses)
        weighted = losses if weight is None else losses * weight
        mean = weighted.mean() if losses.shape[0] else weighted.sum()
        if noted:
            self._take(losses.detach(), ids, scores, unknown)
            self._tally.add(ids)
        return mean

    def take(self, losses: Tensor, ids: Any, scores: Mapping[str, Any]) -> None:
        """Note per-sample losses [B] with `scores` without training on them."""
        if error := self.overdue():
            raise error
        check_losses(losses, None)
        ids = check_ids(ids, losses.shape[0], self._book.num_samples)
        check_scores(scores, losses.shape[0], self._held.own)
        self._take(losses.detach(), ids, scores)

    def observe(self, ids: Any, scores: Mapping[str, Any]) -> None:
        """Note what the backward of the batch trained last gave, with what was held of it."""
        if not self._held.own:
            return
        ids = check_ids(ids, len(ids), self._book.num_samples)
        check_scores(scores, len(ids), self._held.own)
        self._book.observe(ids, *self._held.join(ids, scores))

    def weights(self, ids: Any) -> Tensor | None:
        """What the policy multiplies the losses of samples with, float32 [B]; None for 1."""
        return self._weights.of(check_ids(ids, len(ids), self._book.num_samples))[0]

    def overdue(self) -> InputError | None:
        """What was wrong with the last batch on a GPU, where kernels mark and do not raise."""
        bad = self._deferred.take()
        if bad is None:
            return None
        ids, values, scored, each, unknown = bad
        try:
            check_range(ids, self._book.num_samples)
            if unknown is not None:
                self._weights.refuse(ids, unknown)
            if scored:
                raise_bad_rows(values)
        except InputError as refused:
            return name_ids(refused, ids, each)
        # No row was marked: the loss itself is not a number.
        return _nan_loss(values[0] if scored else values, ids, each)

    def fault(self, ending: int | None) -> InputError | None:
        """What this rank has to report; of the epoch `ending` here, also how it was trained."""
        self._tally.scored |= self._book.pending > 0
        error = self.overdue() or self._held.fault() or self._lacks()
        self._held.forget()
        if error is None and ending is not None:
            error = self._tally.fault(ending, self._policy, self._chosen_by)
        return error

    def _lacks(self) -> InputError | None:
        """What never came to `update`: named for the policy if that needs it, else for people."""
        chosen_by = self._lacking & self._chosen_by
        return lacking(self._policy, chosen_by) or lacking(None, self._lacking)

    def exchange(self, error: Exception | None, ending: int | None = None) -> None:
        """Collective. Bring what was noted to its owners.

        error: what this rank has to report, if anything: all ranks then raise it. ending: the epoch
        that ends here; one that did not train as agreed, or whose scores the policy cannot choose
        by, is reported too. Raises `InputError` on all ranks.
        """
        error = error or self.fault(ending)
        if self._needed:
            self._book.exchange(error)
        else:
            self._book.collective.share_error(error)

    def _weighted(
        self, weight: Tensor | None, ids: Tensor, like: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """A batch's weights by the policy too, and which of its samples are not this rank's."""
        own, unknown = self._weights.of(ids)
        if own is None:
            return weight, None
        check_constant("weight", weight)
        own = own.to(like.device, non_blocking=True)
        return (own if weight is None else own * weight), unknown

    def _check_held(self) -> None:
        error = self._held.fault()
        self._held.forget()
        if error is not None:
            raise error

    @staticmethod
    def _scored(clean: Tensor, logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """The score table of other logits of the same samples."""
        if not isinstance(clean, Tensor) or clean.shape != logits.shape:
            got = list(clean.shape) if isinstance(clean, Tensor) else type(clean).__name__
            raise InputError(f"clean: expected logits {list(logits.shape)}, got {got}.")
        rows, targets, _ = to_classes(clean.detach(), labels)
        return criterion.score(rows, targets)

    def _take(
        self,
        losses: Tensor,
        ids: Tensor,
        scores: Mapping[str, Any],
        unknown: Tensor | None = None,
    ) -> None:
        self._watch(ids, losses, False, 1, unknown)
        if self._needed:
            scores = {"loss": losses, **scores}
            missing = self._needed - scores.keys()
            if missing and missing == self._held.own.keys():
                self._held.hold(ids, scores)
            elif missing:
                self._lacking |= missing
            else:
                self._book.observe(ids, scores)

    def _note(self, ids: Tensor, table: Tensor, each: int) -> None:
        if not self._needed:
            return
        if self._held.own:
            scores = scores_of(table)
            self._held.hold(ids, *(to_samples(scores, each) if each > 1 else (scores, table[2])))
        elif each > 1:
            self._book.observe(ids, *to_samples(scores_of(table), each))
        else:
            self._book.observe(ids, table)

    def _watch(
        self,
        ids: Tensor,
        values: Tensor,
        scored: bool,
        each: int,
        unknown: Tensor | None = None,
    ) -> None:
        """Look at values, or on a GPU have them looked at one step later.

        values: losses [B], or where they were scored here the kernels' table. unknown: bool [B],
        samples whose weight is not here.
        """
        if values.is_cuda:
            wrong = (values[0] if scored else values).isnan().any()
            if ids.is_cuda:
                wrong = wrong | outside(ids, self._book.num_samples)
                if unknown is not None:
                    wrong = wrong | unknown.any()
            self._deferred.watch(wrong, (ids, values, scored, each, unknown))
            return
        if ids.is_cuda:
            check_range(ids, self._book.num_samples)
            if unknown is not None:
                self._weights.refuse(ids, unknown)
        # Rows that were scored have been checked. A sum costs less than a search.
        if not scored and math.isnan(values.sum().item()) and values.isnan().any():
            raise _nan_loss(values, ids, each)


def _nan_loss(losses: Tensor, ids: Tensor, each: int) -> InputError:
    row = int(losses.isnan().nonzero()[0])
    return InputError(f"sample id {int(ids[row // each])}: its loss is NaN.")
