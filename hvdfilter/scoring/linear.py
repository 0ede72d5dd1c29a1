"""linear_cross_entropy: a last linear layer and its loss in one, for vocabularies too wide to hold.

The logits exist one block of classes at a time, in forward and, computed again, in backward. Never
holds a tensor of rows x classes: memory is that of rows x block, beside inputs and gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hvdfilter.errors import InputError
from hvdfilter.scoring.arguments import (
    LABEL_CODES,
    backend,
    check_device,
    check_labels,
    check_logits,
    check_vector,
    raise_bad_rows,
    row_dtype,
    rows_of,
)
from hvdfilter.scoring.scores import Scores

# Logits held at a time, unless the caller says otherwise: 16 MiB of float32.
BLOCK_ELEMENTS = 1 << 22
# Narrower blocks than this leave the matrix products too little work to run at speed.
NARROWEST_BLOCK = 256


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    block: int | None = None,
) -> tuple[Tensor, Scores]:
    """`cross_entropy(features @ weight.T + bias, labels)` without ever holding the logits.

    The loss is `sum_i w_i l_i / n` over the n rows not ignored, differentiable in features, weight
    and bias (once); backward computes the logits again, so a step costs four matrix products
    instead of three.

    Args:
        features: [B, D] float32, float64, bfloat16 or float16, the last layer's input h.
        weight: [C, D] of the same dtype, the last layer's weight.
        bias: [C], or None.
        labels: [B] int32 or int64 in [0, C), or `ignore_index`.
        sample_weight: [B] weight of each sample, a constant.
        ignore_index: rows with this label weigh nothing and get zero scores.
        block: classes held at a time; by default as many as make 4 M logits.

    Returns:
        The loss, a scalar in float32 (float64 for float64 features), and detached `Scores`, per
        sample and unweighted. `Scores.grad_norm` is the exact norm of the sample's gradient with
        respect to the last layer's parameters: `||p - onehot|| sqrt(||h||^2 + 1)` with a bias,
        `||p - onehot|| ||h||` without; divide by that factor for the logit norm.

    Raises:
        InputError: naming the argument (and, on the CPU, the first offending row) for wrong
            shapes, dtypes or devices, a label outside [0, C), or logits that are not finite.
    """
    _check(features, weight, bias, labels, sample_weight)
    if block is not None and block < 1:
        raise InputError(f"block: must be at least 1, not {block}.")
    if torch.is_autocast_enabled(features.device.type):
        dtype = torch.get_autocast_dtype(features.device.type)
        features, weight = features.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if block is None:
        block = max(NARROWEST_BLOCK, BLOCK_ELEMENTS // max(1, features.shape[0]))
    loss, table = _apply(features, weight, bias, labels, sample_weight, ignore_index, block)
    length = torch.linalg.vector_norm(features.detach(), dim=1, dtype=table.dtype)
    factor = length if bias is None else torch.sqrt(length * length + 1)
    each, logit_norm, confidence, margin = table.unbind(0)
    return loss, Scores(each, logit_norm * factor, confidence, margin, margin > 0)


def _check(
    features: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, scale: Tensor | None
) -> None:
    check_logits(features, "features")
    check_logits(weight, "weight")
    if weight.shape[1] != features.shape[1]:
        raise InputError(
            f"weight: expected [classes, {features.shape[1]}] beside features of "
            f"{list(features.shape)}, got {list(weight.shape)}."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InputError(f"bias: expected [{weight.shape[0]}], got {list(bias.shape)}.")
    if labels.dim() != 1 or labels.dtype not in LABEL_CODES:
        raise InputError(f"labels: expected [rows] of int32 or int64, got {list(labels.shape)}.")
    check_labels(labels, features)
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            check_device(name, parameter, features)
            if parameter.dtype != features.dtype and not torch.is_autocast_enabled(
                features.device.type
            ):
                raise InputError(
                    f"{name}: dtype {parameter.dtype} differs from the features' {features.dtype}."
                )
    if scale is not None:
        check_vector("sample_weight", scale, features)
        if scale.requires_grad:
            raise InputError("sample_weight: is taken as a constant; pass sample_weight.detach().")


@torch.compiler.disable
def _apply(*arguments: Any) -> tuple[Tensor, Tensor]:
    outputs: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(*arguments)
    return outputs


def _blocks(
    features: Tensor, weight: Tensor, bias: Tensor | None, block: int
) -> Iterator[tuple[int, int, Tensor]]:
    """First and last class of each block, and its logits in memory that the next one reuses."""
    classes = weight.shape[0]
    memory = features.new_empty(features.shape[0] * min(block, classes))
    for first in range(0, classes, block):
        last = min(first + block, classes)
        logits = memory[: features.shape[0] * (last - first)].view(-1, last - first)
        if bias is None:
            torch.mm(features, weight[first:last].t(), out=logits)
        else:
            torch.addmm(bias[first:last], features, weight[first:last].t(), out=logits)
        yield first, last, logits


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and score table [4, B] from row sums merged block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        sample_weight: Tensor | None,
        ignore_index: int,
        block: int,
    ) -> tuple[Tensor, Tensor]:
        module, tail = backend(features.device)
        rows, dtype = features.shape[0], row_dtype(features)
        labels = labels.contiguous()
        targets = (labels.data_ptr(), LABEL_CODES[labels.dtype], ignore_index)
        sums = features.new_zeros(4, rows, dtype=torch.float64)
        sums[0::3] = -torch.inf
        code = rows_of(features)[1]
        for first, _, logits in _blocks(features, weight, bias, block):
            module.row_sums(*rows_of(logits), *targets, first, sums.data_ptr(), *tail)
        table = features.new_empty(4, rows, dtype=dtype)
        first_bad = module.finish_rows(
            sums.data_ptr(), code, rows, weight.shape[0], *targets, table.data_ptr(), *tail
        )
        if features.device.type == "cpu":
            raise_bad_rows(table, first_bad)
        kept = labels != ignore_index
        scale = kept.to(dtype) / kept.sum().clamp(min=1)
        if sample_weight is not None:
            scale = torch.where(kept, scale * sample_weight, 0).to(dtype)
        ctx.save_for_backward(features, weight, bias, labels, sums, scale)
        ctx.ignore_index, ctx.block = ignore_index, block
        ctx.mark_non_differentiable(table)
        return torch.dot(scale, table[0]), table

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, labels, sums, scale = ctx.saved_tensors
        module, tail = backend(features.device)
        targets = (labels.data_ptr(), LABEL_CODES[labels.dtype], ctx.ignore_index)
        scale = scale * upstream
        wanted = ctx.needs_input_grad
        # Sums over all blocks in the wider dtype; each class's own gradient is whole in its block.
        g_features = torch.zeros_like(features, dtype=scale.dtype) if wanted[0] else None
        g_weight = torch.empty_like(weight) if wanted[1] else None
        g_bias = torch.empty_like(bias) if wanted[2] else None
        for first, last, logits in _blocks(features, weight, bias, ctx.block):
            module.row_gradient(
                *rows_of(logits),
                *targets,
                first,
                weight.shape[0],
                sums.data_ptr(),
                scale.data_ptr(),
                logits.data_ptr(),
                logits.stride(0),
                *tail,
            )
            if g_features is not None and g_features.dtype == logits.dtype:
                g_features.addmm_(logits, weight[first:last])
            elif g_features is not None:
                g_features += logits @ weight[first:last]
            if g_weight is not None:
                torch.mm(logits.t(), features, out=g_weight[first:last])
            if g_bias is not None:
                torch.sum(logits, dim=0, out=g_bias[first:last])
        if g_features is not None:
            g_features = g_features.to(features.dtype)
        return g_features, g_weight, g_bias, None, None, None, None
