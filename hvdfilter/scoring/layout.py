"""Samples of several rows: pixels or tokens become rows of logits, and their scores one a sample.

Shapes only: nothing here computes a loss, and it knows nothing of ids.
"""

from __future__ import annotations

import math

from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.scoring.arguments import DTYPE_CODES
from hvdfilter.scoring.scores import Scores


def to_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Logits [n, C], labels [n] or [n, C], and how many rows each sample has.

    The classes are axis 1, as in torch: logits [B, C, ...] with labels [B, ...], or with soft
    labels of the logits' shape. They are the last axis where the labels fit that alone: logits
    [B, T, V] with labels [B, T]. Where both fit (T = V) it is torch's.

    Raises `InputError` for labels that fit neither way. What is [B, C] already is handed back
    unlooked at: whoever scores it checks it.
    """
    if logits.dim() == 2:
        return logits, labels, 1
    if logits.dim() < 2:
        raise InputError(
            f"logits: expected [B, C], [B, C, ...] or [B, T, V], got {list(logits.shape)}."
        )
    shape = tuple(logits.shape)
    if 0 in shape[1:]:
        raise InputError(f"logits: {list(shape)} holds no row or no class for a sample.")
    each = math.prod(shape[2:])
    if labels.shape == logits.shape and labels.dtype in DTYPE_CODES:
        return _classes_last(logits, 1), _classes_last(labels, 1), each
    if labels.shape == (shape[0], *shape[2:]):
        return _classes_last(logits, 1), labels.reshape(-1), each
    if labels.shape == shape[:-1]:
        return _classes_last(logits, -1), labels.reshape(-1), math.prod(shape[1:-1])
    raise InputError(
        f"labels: {list(labels.shape)} beside logits of {list(shape)} fit neither [B, ...] with "
        "[B, C, ...] nor [B, T] with [B, T, V]."
    )


def to_samples(scores: Scores, rows: int) -> tuple[Scores, Tensor]:
    """Scores of `rows` rows a sample as the means of each sample, and how many rows counted, [B].

    Rows with `ignore_index` are left out; a sample of none but such counts 0 and scores zero. A
    sample is correct where more than half of its rows are.
    """
    # A row that counts holds at least 1 / C; one that is ignored, exactly 0.
    counted = (scores.confidence != 0).view(-1, rows).sum(1)
    divisor = counted.clamp(min=1)
    loss, norm, confidence, margin = (
        column.view(-1, rows).sum(1) / divisor for column in scores[:4]
    )
    correct = scores.correct.view(-1, rows).sum(1) * 2 > counted
    return Scores(loss, norm, confidence, margin, correct), counted


def _classes_last(tensor: Tensor, axis: int) -> Tensor:
    rows = tensor.movedim(axis, -1).flatten(0, -2)
    # A view may leave the classes apart, which the kernels do not read.
    return rows if rows.stride(1) == 1 else rows.contiguous()
