"""Observer: scores batches, notes the scores by sample id, and finds the ids of bad rows.

Its errors are this rank's own: whoever calls it makes them every rank's. Only `exchange` is
collective.
"""

from __future__ import annotations

from torch import Tensor

from hvdfilter import scoring
from hvdfilter.agreement import ScoreBook
from hvdfilter.errors import InputError
from hvdfilter.scoring.deferred import DeferredCheck


class Observer:
    """Notes scores in `book`, where they are wanted: a policy that uses none costs no exchange."""

    def __init__(self, book: ScoreBook, wanted: bool) -> None:
        self._book, self._wanted = book, wanted
        self._deferred = DeferredCheck()

    def loss(self, logits: Tensor, labels: Tensor, ids: Tensor, weight: Tensor | None) -> Tensor:
        """The mean cross entropy of a batch, differentiable, its scores noted.

        Raises `InputError`, naming the ids, for rows that cannot be scored; those that only a GPU
        knows of are told by `overdue`.
        """
        try:
            loss, scores = scoring.cross_entropy(logits, labels, weight)
            self._note(ids, scores)
        except InputError as refused:
            raise name_ids(refused, ids) from None
        return loss

    def score(self, logits: Tensor, labels: Tensor, ids: Tensor) -> scoring.Scores:
        """The scores of a batch, noted; raises as `loss` does."""
        try:
            scores = scoring.score(logits, labels)
            self._note(ids, scores)
        except InputError as refused:
            raise name_ids(refused, ids) from None
        return scores

    def overdue(self) -> InputError | None:
        """What was wrong with the last batch on a GPU, where kernels mark and do not raise."""
        bad = self._deferred.take()
        if bad is None:
            return None
        ids, scores = bad
        try:
            scoring.check(scores)
        except InputError as refused:
            return name_ids(refused, ids)
        # No row was marked: the loss itself is not a number.
        row = int(scores.loss.isnan().nonzero()[0])
        return InputError(f"sample id {int(ids[row])}: its loss is NaN")

    def exchange(self, error: Exception | None) -> None:
        """Collective. Bring what was noted to its owners.

        error: what this rank has to report, if anything: all ranks then raise it.
        """
        error = error or self.overdue()
        if self._wanted:
            self._book.exchange(error)
        else:
            self._book.collective.share_error(error)

    def _note(self, ids: Tensor, scores: scoring.Scores) -> None:
        self._deferred.note(ids, scores)
        if self._wanted:
            self._book.observe(ids, scores)


def name_ids(error: InputError, ids: Tensor) -> InputError:
    """The same error, told in sample ids instead of rows of a batch."""
    rows = getattr(error, "rows", [])
    if not rows:
        return error
    named = ", ".join(str(int(ids[row])) for row in rows[:8])
    return InputError(f"sample id {named}: {error}")
