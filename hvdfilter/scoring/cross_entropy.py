"""cross_entropy: the training loss of a batch that scores every sample on the way.

One pass over the logits gives the weighted mean loss, the scores and, where float range allows, the
gradient itself, so that backward has nothing left to do. Never holds a matrix of probabilities.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.scoring import passes
from hvdfilter.scoring.arguments import (
    check_labels,
    check_logits,
    check_vector,
    is_plain,
    row_dtype,
    scores_of,
)
from hvdfilter.scoring.operators import cross_entropy_op
from hvdfilter.scoring.scores import Scores


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    features: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> tuple[Tensor, Scores]:
    """The weighted mean cross-entropy, differentiable in the logits, and the batch's scores.

    The mean is `sum_i w_i l_i / n` over the n rows not ignored: unbiased for importance weights
    of mean one, whatever the batch. With no such row it is 0.

    Args:
        logits: [B, C] float32, float64, bfloat16 or float16; rows may be strided, classes not.
            -inf masks a class.
        labels: [B] int32 or int64 in [0, C), or `ignore_index`; or soft labels, [B, C] of a
            floating dtype, not negative. Margin and correctness of a soft row are those of its
            most likely class.
        weight: [B] weight of each sample, a constant (one without a gradient).
        features: [B, D] input of the last linear layer, see `score`.
        label_smoothing: share of each target spread evenly over all classes, in [0, 1].
        ignore_index: rows with this label weigh nothing and get zero scores.

    Returns:
        The loss, a scalar in float32 (float64 for float64 logits), and detached `Scores` whose
        loss and norm are per sample, unweighted, of the target with its smoothing.

    Raises:
        InputError: as `score` does.

    Example:
        >>> logits = torch.zeros(2, 4, requires_grad=True)
        >>> loss, scores = cross_entropy(logits, torch.tensor([0, 1]))
        >>> loss.item() == scores.loss.mean().item()
        True
    """
    if features is not None:
        check_vector("features", features, logits, dims=2)
    loss, table = tabled(logits, labels, weight, label_smoothing, ignore_index)
    return loss, scores_of(table, features)


def tabled(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """The loss as `cross_entropy` gives it, and the scores as one table, see `scores_of`."""
    check_logits(logits)
    check_labels(labels, logits, soft=True)
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError(f"label_smoothing: must lie in [0, 1], not {label_smoothing}.")
    if weight is not None:
        check_vector("weight", weight, logits)
        if weight.requires_grad:
            raise InputError("weight: is taken as a constant; pass weight.detach().")
        weight = weight.to(row_dtype(logits)).contiguous()
    labels = labels.detach()
    differentiable = logits.requires_grad and torch.is_grad_enabled()
    if not is_plain(logits, labels, weight):
        outputs = cross_entropy_op(
            logits, labels, weight, label_smoothing, ignore_index, differentiable
        )
    elif differentiable:
        tables: list[Tensor] = []
        loss = _CrossEntropy.apply(logits, labels, weight, label_smoothing, ignore_index, tables)
        return loss, tables[0]
    else:
        outputs = passes.new_outputs(logits, False)
        passes.forward(logits, labels, weight, label_smoothing, ignore_index, outputs)
    return outputs[0], outputs[1]


class _CrossEntropy(torch.autograd.Function):
    """The eager path: what the registered operator does, at half its cost per call.

    The score table is handed out through a list: as a second output it would have a gradient made
    for it in every backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        smoothing: float,
        ignore_index: int,
        tables: list[Tensor],
    ) -> Tensor:
        inputs = (logits, labels, weight, smoothing, ignore_index)
        outputs = passes.forward(*inputs, passes.new_outputs(logits, True, bare=True))
        passes.keep(ctx, inputs, outputs)
        tables.append(outputs[1])
        return outputs[0]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients are on only where one of the gradient is asked for, which there is not: the
        # wrapper that says so is not worth its cost to everybody else.
        run = _gradient_once if torch.is_grad_enabled() else _gradient
        return run(ctx, upstream)


def _gradient(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    return passes.gradient(ctx, upstream, passes.backward), None, None, None, None, None


_gradient_once = torch.autograd.function.once_differentiable(_gradient)
