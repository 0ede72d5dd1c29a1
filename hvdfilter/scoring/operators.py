"""The passes as operators registered with torch: what torch.compile and tensor subclasses see.

Each has a fake that gives shapes and dtypes alone. Eager code calls the passes themselves, at half
the cost. Schemas are written out: torch 2.4 cannot infer them from postponed annotations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvdfilter.scoring import passes
from hvdfilter.scoring.passes import Outputs

_BATCH = "Tensor logits, Tensor labels, Tensor? weight, float smoothing, int ignore_index"


@torch.library.custom_op(
    "hvdfilter::score",
    mutates_args=(),
    schema="(Tensor logits, Tensor labels, int ignore_index) -> Tensor",
)
def score_op(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The [4, B] table of loss, gradient norm, confidence and margin."""
    return passes.score_table(logits, labels, ignore_index)


@score_op.register_fake
def _(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    return passes.new_table(logits)


@torch.library.custom_op(
    "hvdfilter::cross_entropy",
    mutates_args=(),
    schema=f"({_BATCH}, bool differentiable) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def cross_entropy_op(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    differentiable: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, score table, count, row sums and gradient."""
    outputs = passes.new_outputs(logits, differentiable)
    return passes.forward(logits, labels, weight, smoothing, ignore_index, outputs)  # type: ignore[return-value]


@cross_entropy_op.register_fake
def _(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    differentiable: bool,
) -> Outputs:
    return passes.new_outputs(logits, differentiable)


@torch.library.custom_op(
    "hvdfilter::cross_entropy_backward",
    mutates_args=(),
    schema=f"({_BATCH}, Tensor sums, Tensor count, Tensor upstream) -> Tensor",
)
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
    return passes.backward(logits, labels, weight, smoothing, ignore_index, sums, count, upstream)


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
    return passes.new_gradient(logits)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.mark_non_differentiable(*output[1:])
    if inputs[5]:
        passes.keep(ctx, inputs, output)


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad = passes.gradient(ctx, upstream, cross_entropy_backward_op)
    return grad, None, None, None, None, None


cross_entropy_op.register_autograd(_backward, setup_context=_setup_context)
