"""Criterion: the options of the training loss, equal to torch's, with the kernels' scores.

It is what `torch.nn.functional.cross_entropy` takes beside logits and labels. Rows only: how many
of them a sample has, and what its id is, is unknown here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.scoring.arguments import check_device, check_labels, check_logits
from hvdfilter.scoring.cross_entropy import tabled
from hvdfilter.scoring.score import table_of


class Criterion(NamedTuple):
    """Options of the cross entropy: those of torch, with `class_weight` [C] for its `weight`."""

    class_weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = -100

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """The loss of rows [n, C], differentiable, and their score table; labels [n] or [n, C].

        The loss is torch's of reduction "mean", each row's term multiplied with its `weight` [n];
        it is 0 where no row counts. Scores are weighted neither by row nor by class: a weight
        says how much a sample counts, not how hard it is.
        """
        smoothing, ignored = self.label_smoothing, self.ignore_index
        if self.class_weight is None:
            return tabled(logits, labels, weight, smoothing, ignored)
        hard = not labels.is_floating_point()
        classes = self._checked_weight(logits, labels)
        if hard and not smoothing:
            own, total = self._own_weight(classes, labels)
            # The kernel divides by the rows that count, torch by the sum of their weights.
            factor = _times(own * _share((labels != ignored).sum(), total), weight)
            return tabled(logits, labels, factor, 0.0, ignored)
        # Weighted shares of the classes are no target to score a row by: one pass for each.
        _, table = tabled(logits.detach(), labels, None, smoothing, ignored)
        if hard:
            # Soft labels know of none to ignore: the kernel divides by all rows.
            _, total = self._own_weight(classes, labels)
            kept = (labels != ignored).to(classes.dtype)
            weight = _times(kept * _share(labels.numel(), total), weight)
        shares = self._weighted_shares(classes, labels)
        return tabled(logits, shares, weight, 0.0, ignored)[0], table

    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The score table of rows, that which `loss` gives."""
        if self.label_smoothing or labels.is_floating_point():
            plain = self._replace(class_weight=None)
            return plain.loss(logits.detach(), labels, None)[1]
        return table_of(logits, labels, self.ignore_index)

    def _checked_weight(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_logits(logits)
        check_labels(labels, logits, soft=True)
        weight, classes = self.class_weight, logits.shape[1]
        if not isinstance(weight, Tensor):
            raise InputError(f"class_weight: expected a tensor, not {type(weight).__name__}.")
        if weight.shape != (classes,) or not weight.is_floating_point():
            raise InputError(
                f"class_weight: expected {classes} floating values, one for each class, got "
                f"{weight.dtype} {list(weight.shape)}."
            )
        check_device("class_weight", weight, logits)
        return weight.detach()

    def _own_weight(self, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The weight of each row's class, 0 where it is ignored, and their sum."""
        # A label out of range is the kernel's to name: here it must only not be looked up.
        known = labels.clamp(0, len(classes) - 1).long()
        own = torch.where(labels != self.ignore_index, classes[known], 0)
        return own, own.sum()

    def _weighted_shares(self, classes: Tensor, labels: Tensor) -> Tensor:
        """The smoothed target of each row, each class's share times its weight; [n, C]."""
        count = len(classes)
        if not labels.is_floating_point():
            known = labels.clamp(0, count - 1).long()
            labels = torch.nn.functional.one_hot(known, count)
        return (labels * (1 - self.label_smoothing) + self.label_smoothing / count) * classes


def _share(count: Tensor | int, total: Tensor) -> Tensor:
    """count / total, and 0 where nothing weighs anything."""
    return torch.where(total > 0, count / total, 0)


def _times(factor: Tensor, weight: Tensor | None) -> Tensor:
    return factor if weight is None else factor * weight
