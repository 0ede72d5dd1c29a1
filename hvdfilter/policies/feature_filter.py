"""Feature filter: choose once by what each sample adds to the features, then grow the batch.

Gahlot, Yin, Shankar, "Data optimization for large batch distributed training of deep neural
networks", 2020: leave out the samples that matter least to feature learning, and the loss landscape
gets smooth enough for a larger global batch. Only the claim is public, no rule and no code: the
three scores here are this package's reading of it (hvdfilter/features), and none of their figures
is claimed. The policy ranks; it runs no model and computes no score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, View
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static
from hvdfilter.registry import nearest

#: What a sample can be scored by; the score file has a column of each.
SCORES = ("gradient", "reconstruction", "density")


def column_of(score: str) -> str:
    """The name of a score in the score book and in score files."""
    return f"feature_{score}"


@register
@dataclass(frozen=True)
class FeatureFilter(Static):
    """Keep what adds most to the features, chosen once at the end of the opening epochs.

    keep=0.7, scores="", opening=10, scale_lr=False: as of every static policy. score="gradient":
    the exact gradient norm of the last linear layer; "reconstruction": the error of a small linear
    auto-encoder of that layer's input; "density": how far its 8th nearest landmark lies.

    `hvdfilter train` scores by itself as the opening ends, `hf.feature_scores` in a script; score
    files have the columns feature_gradient, feature_reconstruction and feature_density.

    Cost: opening epochs of full training, one forward-only pass over all samples (none with a score
    file), and for the last two scores the features of N / P samples in a rank's memory. Nothing is
    observed while training. Made for a larger batch afterwards (--batch-growth); in the runs of
    docs/large-batch.md it fared as a random choice at equal steps.
    """

    name: ClassVar[str] = "feature-filter"
    source: ClassVar[str] = "Gahlot, Yin, Shankar 2020"
    cost: ClassVar[str] = "opening epochs of full training, one forward pass"
    score: str = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score not in SCORES:
            near = nearest(self.score, SCORES)
            meant = "" if near is None else f"; did you mean {near!r}?"
            raise InputError(
                f"policy 'feature-filter': score={self.score!r} is none{meant} (there are: "
                f"{', '.join(SCORES)})"
            )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The score: put into the book from outside, changed by nothing that training sees."""
        name = column_of(self.score)

        def stays(old: Columns, seen: Columns) -> NDArray[np.float32]:
            return old[name]

        return (Field(name, "<f4", np.inf, (), stays),)

    @property
    def columns(self) -> tuple[str | Field, ...]:  # type: ignore[override]
        """The score, which no observation changes; none where a score file holds it."""
        return () if self.scores else self.fields

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The score; a sample without one counts as the largest."""
        return columns[column_of(self.score)]

    def plan(self, view: View) -> Plan:
        """Everything in the opening epochs, then always the same choice.

        Raises `InputError` on every rank when the scores have not come by then.
        """
        if self.scores or view.epoch < self.opening:
            return super().plan(view)
        key = self.importance({column_of(self.score): view.column(column_of(self.score))})
        if not view.total(np.array([np.isfinite(key).sum()], np.int64))[0]:
            raise InputError(
                f"policy 'feature-filter' chooses in epoch {self.opening} by scores that never "
                "came: call hf.feature_scores(filt, model, batches) on all ranks before it begins"
            )
        return self.choose(view, key)
