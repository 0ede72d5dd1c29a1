"""Linear layers, with any number of positions between the batch and the features.

Never unfolds a batch of one position: there the norm is `||g|| ||a||`, two sums of squares.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hvdfilter.scoring.grad_norm import native_products
from hvdfilter.scoring.grad_norm.layer import Layer
from hvdfilter.scoring.grad_norm.products import (
    ProductPiece,
    gram_is_cheaper,
    sample_products,
    sample_squares,
)
from hvdfilter.scoring.grad_norm.rows import note_rows


class LinearLayer(Layer):
    """torch.nn.Linear on [B, d_in] or [B, ..., d_in]."""

    families: ClassVar[dict[str, str]] = {"weight": "product", "bias": "rows"}

    def _call(self, x: Tensor) -> Tensor:
        if x.dim() < 2:
            raise self.refuse("needs a batch dimension")
        self.ledger.batch(x.shape[0], self.name)
        y: Tensor = _Linear.apply(x, self.module.weight, self.module.bias, self)
        return y

    def weight_gradient(self, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """Note the weight's norms; a [B, T, K], g [B, T, M]. Also bias rows, if they came along."""
        record = self.records["weight"]
        if record.reader is not None:
            record.reader.product(self, a, g)
        length, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]

        def positions(i: int, j: int) -> Tensor:
            return a[i:j].unsqueeze(1)

        if not record.alone:
            gradient = torch.einsum("btm,btk->mk", g, a)
            return record.stash(ProductPiece(positions, g.unsqueeze(1), inputs), gradient), None
        if native_products.suits(a, g, length, inputs, outputs, unfolds=False):
            squares, gradient, rows = native_products.linear(a, g)
            return record.settle(squares, gradient), rows
        if gram_is_cheaper(length, inputs, outputs):
            squares = sample_squares(positions, g.unsqueeze(1), inputs)
            gradient = g.flatten(0, 1).t() @ a.flatten(0, 1)
        else:
            squares, total = sample_products(positions, g.unsqueeze(1), inputs)
            gradient = total.squeeze(0)
        return record.settle(squares, gradient), None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: LinearLayer
    ) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        layer: LinearLayer = ctx.layer
        gx = gw = gb = rows = None
        if ctx.needs_input_grad[0]:
            gx = g @ weight.to(g.dtype)
        g = g.flatten(1, -2) if g.dim() > 2 else g.unsqueeze(1)
        if ctx.needs_input_grad[1]:
            a = x.reshape(g.shape[0], g.shape[1], x.shape[-1]).to(g.dtype)
            gw, rows = layer.weight_gradient(a, g)
        if ctx.needs_input_grad[2]:
            gb = note_rows(layer.records["bias"], g.sum(dim=1) if rows is None else rows)
        return gx, gw, gb, None
