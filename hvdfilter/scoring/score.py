"""score: per-sample loss and gradient norm of a batch of logits, from one sweep over them.

Never differentiates and never changes its input. The arithmetic is in csrc/row_score.h, its plain
torch twin in reference.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.scoring.arguments import (
    LABEL_CODES,
    backend,
    check_labels,
    check_logits,
    check_vector,
    is_plain,
    raise_bad_rows,
    row_dtype,
    rows_of,
    scores_of,
)
from hvdfilter.scoring.scores import Scores


def score(
    logits: Tensor, labels: Tensor, *, features: Tensor | None = None, ignore_index: int = -100
) -> Scores:
    """Loss, gradient norm, confidence, margin and correctness of every row, detached.

    Args:
        logits: [B, C] float32, float64, bfloat16 or float16; rows may be strided, classes not.
            -inf masks a class.
        labels: [B] int32 or int64 in [0, C), or `ignore_index`.
        features: [B, D] input of the last linear layer. With it `grad_norm` is the exact norm of
            that layer's weight-and-bias gradient, `||softmax(z) - onehot(y)|| sqrt(||h||^2 + 1)`.
        ignore_index: rows with this label get zeros and False.

    Returns:
        `Scores` of [B] tensors, float32 (float64 for float64 logits).

    Raises:
        InputError: shape, dtype, device or stride of an argument; NaN or +inf logits, or a label
            out of range (`BadRowsError`, with `rows`). On a GPU the last two become NaN scores:
            see `hvdfilter.scoring.check`.

    Example:
        >>> score(torch.tensor([[2.0, 2.0]]), torch.tensor([0])).loss
        tensor([0.6931])
    """
    check_logits(logits)
    check_labels(labels, logits)
    if features is not None:
        check_vector("features", features, logits, dims=2)
    logits = logits.detach()
    run = _score_table if is_plain(logits, labels) else score_op
    return scores_of(run(logits, labels, ignore_index), features)


def _score_table(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    module, tail = backend(logits.device)
    labels = labels.contiguous()
    table = logits.new_empty((4, logits.shape[0]), dtype=row_dtype(logits))
    first_bad = module.score(
        *rows_of(logits),
        labels.data_ptr(),
        LABEL_CODES[labels.dtype],
        ignore_index,
        table.data_ptr(),
        *tail,
    )
    if logits.device.type == "cpu":
        raise_bad_rows(table, first_bad)
    return table


@torch.library.custom_op("hvdfilter::score", mutates_args=())
def score_op(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The [4, B] table of loss, gradient norm, confidence and margin, as torch.compile sees it."""
    return _score_table(logits, labels, ignore_index)


@score_op.register_fake
def _(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    return logits.new_empty((4, logits.shape[0]), dtype=row_dtype(logits))
