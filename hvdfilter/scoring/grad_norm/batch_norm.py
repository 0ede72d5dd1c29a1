"""BatchNorm in eval mode, where it is an affine map of each sample alone.

In train mode every output depends on the whole batch, so that no sample has a gradient of its own:
always refused, trainable parameters or not.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hvdfilter.scoring.grad_norm.layer import Layer
from hvdfilter.scoring.grad_norm.rows import note_rows


class BatchNormLayer(Layer):
    """torch.nn.BatchNorm1d/2d/3d on [B, C, ...] in eval mode."""

    families: ClassVar[dict[str, str]] = {"weight": "rows", "bias": "rows"}

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Refuse statistics of the batch, then go on as any layer."""
        if self.module.training or self.module.running_mean is None:
            if torch.is_grad_enabled():
                raise self.refuse(
                    "normalises by the statistics of the batch, which couples its samples: "
                    f"call eval() on it, or use GroupNorm{self.ledger.otherwise}"
                )
        return super().forward(*inputs, **named)

    def _call(self, x: Tensor) -> Tensor:
        self.module._check_input_dim(x)
        self.ledger.batch(x.shape[0], self.name)
        y: Tensor = _BatchNorm.apply(x, self.module.weight, self.module.bias, self)
        return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: BatchNormLayer
    ) -> Tensor:
        module = layer.module
        ctx.layer = layer
        ctx.save_for_backward(x, weight, module.running_mean, module.running_var)
        return F.batch_norm(
            x, module.running_mean, module.running_var, weight, bias, False, 0.0, module.eps
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        layer: BatchNormLayer = ctx.layer
        shape = (1, -1, *[1] * (x.dim() - 2))
        pixels = tuple(range(2, x.dim()))
        rstd = (var + layer.module.eps).rsqrt()
        gx = gw = gb = None
        if ctx.needs_input_grad[1]:
            product = (x - mean.view(shape)).mul_(g)
            rows = (product.sum(dim=pixels) if pixels else product) * rstd
            gw = note_rows(layer.records["weight"], rows)
        if ctx.needs_input_grad[2]:
            gb = note_rows(layer.records["bias"], g.sum(dim=pixels) if pixels else g)
        if ctx.needs_input_grad[0]:
            gx = g * (weight * rstd).view(shape)
        return gx, gw, gb, None
