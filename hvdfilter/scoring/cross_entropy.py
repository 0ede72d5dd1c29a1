"""cross_entropy: the training loss of a batch that scores every sample on the way.

One pass over the logits gives the weighted mean loss, the scores and, where float range allows, the
gradient itself, so that backward has nothing left to do. Never holds a matrix of probabilities.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.scoring.arguments import (
    LABEL_CODES,
    SOFT_LABELS,
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

# With these the gradient is written during forward, for a loss whose own gradient is 1. float16
# would underflow before a loss scaler's factor reached it, and float64 is for checking: both are
# recomputed in backward, when the factor is known.
FUSED_DTYPES = (torch.float32, torch.bfloat16)


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
    check_logits(logits)
    check_labels(labels, logits, soft=True)
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError(f"label_smoothing: must lie in [0, 1], not {label_smoothing}.")
    if features is not None:
        check_vector("features", features, logits, dims=2)
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
        outputs = _CrossEntropy.apply(logits, labels, weight, label_smoothing, ignore_index)
    else:
        outputs = _forward(logits, labels, weight, label_smoothing, ignore_index, False)
    return outputs[0], scores_of(outputs[1], features)


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _outputs(logits: Tensor, differentiable: bool) -> Outputs:
    """Room for loss, score table, count, row sums and gradient; the last two empty if unwanted."""
    dtype = row_dtype(logits)
    rows = logits.shape[0]
    fused = differentiable and logits.dtype in FUSED_DTYPES
    kept = differentiable and not fused
    return (
        logits.new_empty((), dtype=dtype),
        logits.new_empty((4, rows), dtype=dtype),
        logits.new_empty((), dtype=dtype),
        logits.new_empty((4, rows) if kept else (0,), dtype=torch.float64),
        logits.new_empty(logits.shape if fused else (0,)),
    )


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def _targets(
    labels: Tensor, logits: Tensor, ignore_index: int
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Labels as the kernels read them; the tensor is returned so that it stays alive."""
    if labels.dim() == 1:
        labels, code = labels.contiguous(), LABEL_CODES[labels.dtype]
    else:
        labels, code = labels.to(row_dtype(logits)).contiguous(), SOFT_LABELS
    return labels, (labels.data_ptr(), code, labels.stride(0), ignore_index)


def _forward(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    differentiable: bool,
) -> Outputs:
    module, tail = backend(logits.device)
    outputs = _outputs(logits, differentiable)
    loss, table, count, sums, grad = outputs
    labels, targets = _targets(labels, logits, ignore_index)
    first_bad = module.cross_entropy(
        *rows_of(logits),
        *targets,
        _address(weight),
        smoothing,
        table.data_ptr(),
        _address(sums),
        loss.data_ptr(),
        count.data_ptr(),
        _address(grad),
        logits.shape[1],
        *tail,
    )
    if logits.device.type == "cpu":
        raise_bad_rows(table, first_bad)
    return outputs


def _backward(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    sums: Tensor,
    count: Tensor,
    upstream: Tensor,
) -> Tensor:
    module, tail = backend(logits.device)
    grad = logits.new_empty(logits.shape)
    labels, targets = _targets(labels, logits, ignore_index)
    module.cross_entropy_backward(
        *rows_of(logits),
        *targets,
        _address(weight),
        smoothing,
        sums.data_ptr(),
        count.data_ptr(),
        upstream.data_ptr(),
        grad.data_ptr(),
        logits.shape[1],
        *tail,
    )
    return grad


class _CrossEntropy(torch.autograd.Function):
    """The eager path: what the registered operator does, at half its cost per call."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        smoothing: float,
        ignore_index: int,
    ) -> tuple[Tensor, Tensor]:
        inputs = (logits, labels, weight, smoothing, ignore_index)
        outputs = _forward(*inputs, True)
        _keep(ctx, inputs, outputs)
        ctx.mark_non_differentiable(outputs[1])
        return outputs[0], outputs[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _gradient(ctx, upstream, _backward), None, None, None, None


def _keep(ctx: Any, inputs: tuple[Any, ...], outputs: Outputs) -> None:
    """Save for backward the gradient itself, or what it is recomputed from."""
    logits, labels, weight, ctx.smoothing, ctx.ignore_index = inputs[:5]
    _, _, count, sums, grad = outputs
    ctx.fused = logits.dtype in FUSED_DTYPES
    ctx.rescaled = False
    ctx.save_for_backward(*((grad,) if ctx.fused else (logits, labels, weight, sums, count)))


def _gradient(ctx: Any, upstream: Tensor, recompute: Any) -> Tensor:
    """The gradient of the logits for the loss's own gradient `upstream`."""
    if not ctx.fused:
        logits, labels, weight, sums, count = ctx.saved_tensors
        targets = (labels, weight, ctx.smoothing, ctx.ignore_index)
        return recompute(logits, *targets, sums, count, upstream.to(count.dtype))
    (grad,) = ctx.saved_tensors
    if not is_plain(grad, upstream):
        return grad * upstream
    if grad.device.type == "cpu":
        return grad if upstream.item() == 1.0 else grad * upstream
    # The factor is not known on the host, and a second tensor would double the traffic: the kernel
    # returns at once where it is 1, and the saved gradient serves one backward.
    if ctx.rescaled:
        raise RuntimeError("cross_entropy's backward runs once per forward on a GPU.")
    ctx.rescaled = True
    module, tail = backend(grad.device)
    code, factor = rows_of(grad)[1], upstream.to(torch.float32)
    module.rescale(grad.data_ptr(), code, grad.numel(), factor.data_ptr(), *tail)
    return grad


@torch.library.custom_op("hvdfilter::cross_entropy", mutates_args=())
def cross_entropy_op(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    differentiable: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, score table, count, row sums and gradient, as torch.compile sees them."""
    return _forward(logits, labels, weight, smoothing, ignore_index, differentiable)


@cross_entropy_op.register_fake
def _(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    differentiable: bool,
) -> Outputs:
    return _outputs(logits, differentiable)


@torch.library.custom_op("hvdfilter::cross_entropy_backward", mutates_args=())
def cross_entropy_backward_op(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    sums: Tensor,
    count: Tensor,
    upstream: Tensor,
) -> Tensor:
    """The gradient of the logits recomputed from the row sums."""
    return _backward(logits, labels, weight, smoothing, ignore_index, sums, count, upstream)


@cross_entropy_backward_op.register_fake
def _(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    sums: Tensor,
    count: Tensor,
    upstream: Tensor,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.mark_non_differentiable(*output[1:])
    if inputs[5]:
        _keep(ctx, inputs, output)


def _op_backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return _gradient(ctx, upstream, cross_entropy_backward_op), None, None, None, None, None


cross_entropy_op.register_autograd(_op_backward, setup_context=_setup_context)
