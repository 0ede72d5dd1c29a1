"""score: per-sample loss and gradient norm of a batch of logits, from one sweep over them.

Never differentiates and never changes its input. The arithmetic is in csrc/row_score.h, its plain
torch twin in reference.py.
"""

from __future__ import annotations

from torch import Tensor

from hvdfilter.scoring.arguments import (
    check_labels,
    check_logits,
    check_vector,
    is_plain,
    scores_of,
)
from hvdfilter.scoring.operators import score_op
from hvdfilter.scoring.passes import score_table
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
    if features is not None:
        check_vector("features", features, logits, dims=2)
    return scores_of(table_of(logits, labels, ignore_index), features)


def table_of(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The scores as one table, see `scores_of`."""
    check_logits(logits)
    check_labels(labels, logits)
    logits = logits.detach()
    run = score_table if is_plain(logits, labels) else score_op
    return run(logits, labels, ignore_index)
