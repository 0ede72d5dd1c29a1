"""LayerNorm and RMSNorm: per-sample gradients are rows, summed over a sample's positions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hvdfilter.scoring.grad_norm.layer import Layer
from hvdfilter.scoring.grad_norm.rows import note_rows


class LayerNormLayer(Layer):
    """torch.nn.LayerNorm on [B, ..., *normalized_shape]."""

    families: ClassVar[dict[str, str]] = {"weight": "rows", "bias": "rows"}

    def _call(self, x: Tensor) -> Tensor:
        self._check_batch(x)
        y: Tensor = _LayerNorm.apply(self.widened(x), self.module.weight, self.module.bias, self)
        return y

    def _check_batch(self, x: Tensor) -> None:
        if x.dim() <= len(self.module.normalized_shape):
            raise self.refuse("needs a batch dimension in front of its normalized_shape")
        self.ledger.batch(x.shape[0], self.name)

    def rows(self, g: Tensor) -> Tensor:
        """Sum [B, ..., *normalized_shape] over all positions: [B, D]."""
        width = 1
        for size in self.module.normalized_shape:
            width *= size
        return g.reshape(g.shape[0], -1, width).sum(dim=1)


class RMSNormLayer(LayerNormLayer):
    """torch.nn.RMSNorm on [B, ..., *normalized_shape]."""

    families: ClassVar[dict[str, str]] = {"weight": "rows"}

    def _call(self, x: Tensor) -> Tensor:
        self._check_batch(x)
        y: Tensor = _RMSNorm.apply(self.widened(x), self.module.weight, self)
        return y


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: LayerNormLayer
    ) -> Tensor:
        module: nn.LayerNorm = layer.module
        y, mean, rstd = torch.native_layer_norm(
            x, module.normalized_shape, weight, bias, module.eps
        )
        ctx.layer = layer
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        layer: LayerNormLayer = ctx.layer
        gx = gw = gb = None
        if ctx.needs_input_grad[1]:
            gw = note_rows(layer.records["weight"], layer.rows((x - mean) * rstd * g))
        if ctx.needs_input_grad[2]:
            gb = note_rows(layer.records["bias"], layer.rows(g))
        if ctx.needs_input_grad[0]:
            gx = torch.ops.aten.native_layer_norm_backward(
                g.contiguous(),
                x,
                layer.module.normalized_shape,
                mean,
                rstd,
                weight,
                bias,
                [True, False, False],
            )[0]
        return gx, gw, gb, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: RMSNormLayer) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, weight)
        return F.rms_norm(x, layer.module.normalized_shape, weight, layer.module.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        layer: RMSNormLayer = ctx.layer
        dims = tuple(range(-len(layer.module.normalized_shape), 0))
        eps = torch.finfo(x.dtype).eps if layer.module.eps is None else layer.module.eps
        rstd = (x.square().mean(dim=dims, keepdim=True) + eps).rsqrt()
        normal = x * rstd
        gx = gw = None
        if ctx.needs_input_grad[0]:
            scaled = g * weight
            gx = rstd * (scaled - normal * (scaled * normal).mean(dim=dims, keepdim=True))
        if ctx.needs_input_grad[1]:
            gw = note_rows(layer.records["weight"], layer.rows(g * normal))
        return gx, gw, None
