"""The native passes over a batch of logits: what they are handed, what they fill, what they keep.

Arguments have been checked before. Nothing here knows whether eager code or a compiler calls it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvdfilter.scoring.arguments import (
    LABEL_CODES,
    SOFT_LABELS,
    backend,
    is_plain,
    raise_bad_rows,
    row_dtype,
    rows_of,
)

# With these the gradient is written during forward, for a loss whose own gradient is 1. float16
# would underflow before a loss scaler's factor reached it, and float64 is for checking: both are
# recomputed in backward, when the factor is known.
FUSED_DTYPES = (torch.float32, torch.bfloat16)

# Of `forward`: loss, score table, count, row sums and gradient. The eager pass leaves out what
# nothing will read: each costs a microsecond in every step.
Outputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]


def score_table(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The [4, B] table of loss, gradient norm, confidence and margin."""
    module, tail = backend(logits.device)
    labels = labels.contiguous()
    table = new_table(logits)
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


def forward(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    outputs: Outputs,
) -> Outputs:
    """Loss and score table of a batch, and what its gradient needs where one is wanted.

    outputs: room for them, of `new_outputs`; returned.
    """
    module, tail = backend(logits.device)
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
        _address(count),
        _address(grad),
        grad.stride(0) if grad.dim() == 2 else 0,
        *tail,
    )
    if logits.device.type == "cpu":
        raise_bad_rows(table, first_bad)
    return outputs


def backward(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    sums: Tensor,
    count: Tensor,
    upstream: Tensor,
) -> Tensor:
    """The gradient of the logits, recomputed from the row sums."""
    module, tail = backend(logits.device)
    grad = new_gradient(logits)
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
        grad.stride(0),
        *tail,
    )
    return grad


def keep(ctx: Any, inputs: tuple[Any, ...], outputs: Outputs) -> None:
    """Save for backward the gradient itself, or what it is recomputed from."""
    logits, labels, weight, ctx.smoothing, ctx.ignore_index = inputs[:5]
    _, _, count, sums, grad = outputs
    ctx.fused = logits.dtype in FUSED_DTYPES
    ctx.rescaled = False
    if ctx.fused:
        ctx.save_for_backward(grad)
    else:
        ctx.save_for_backward(logits, labels, weight, sums, count)


def gradient(ctx: Any, upstream: Tensor, recompute: Any) -> Tensor:
    """The gradient of the logits for the loss's own gradient `upstream`, from what `keep` saved.

    recompute: `backward`, or the operator that stands for it.
    """
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
    # With what lies between padded rows, which nobody reads.
    elements = grad.shape[0] * grad.stride(0)
    module.rescale(grad.data_ptr(), code, elements, factor.data_ptr(), *tail)
    return grad


def new_gradient(logits: Tensor) -> Tensor:
    """Room for the gradient, [rows, classes]: contiguous, but for a GPU's logits in padded rows.

    Logits whose rows are whole 16-byte vectors apart, as 50257 classes in rows of 50304, get a
    gradient whose rows are, too: else a kernel stores it element by element.
    """
    rows, classes = logits.shape
    a_vector = 16 // logits.element_size()
    if (
        logits.device.type == "cpu"
        or classes % a_vector == 0
        or logits.stride(0) % a_vector
        or rows < 2
    ):
        return logits.new_empty(logits.shape)
    return logits.new_empty((rows, classes + -classes % a_vector))[:, :classes]


def new_table(logits: Tensor) -> Tensor:
    """Room for the score table."""
    return logits.new_empty((4, logits.shape[0]), dtype=row_dtype(logits))


def new_outputs(logits: Tensor, differentiable: bool, bare: bool = False) -> Outputs:
    """Room for what `forward` fills; the last two are empty where they are not wanted.

    bare: what a gradient that is written on the CPU at once does without is None instead.
    """
    dtype = row_dtype(logits)
    fused = differentiable and logits.dtype in FUSED_DTYPES
    kept = differentiable and not fused
    if bare and fused and logits.device.type == "cpu":
        loss, table = logits.new_empty((), dtype=dtype), new_table(logits)
        return loss, table, None, None, new_gradient(logits)
    return (
        logits.new_empty((), dtype=dtype),
        new_table(logits),
        logits.new_empty((), dtype=dtype),
        logits.new_empty((4, logits.shape[0]) if kept else (0,), dtype=torch.float64),
        new_gradient(logits) if fused else logits.new_empty((0,)),
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
