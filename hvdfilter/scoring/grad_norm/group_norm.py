"""GroupNorm, and InstanceNorm as the case of one channel a group: rows of one number a channel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hvdfilter.scoring.grad_norm.layer import Layer
from hvdfilter.scoring.grad_norm.rows import note_rows


class GroupNormLayer(Layer):
    """torch.nn.GroupNorm on [B, C, ...]."""

    families: ClassVar[dict[str, str]] = {"weight": "rows", "bias": "rows"}

    def groups(self) -> int:
        """Channel groups that share a mean and a variance."""
        count: int = self.module.num_groups
        return count

    def _call(self, x: Tensor) -> Tensor:
        if x.dim() < 2:
            raise self.refuse("needs a batch dimension")
        self.ledger.batch(x.shape[0], self.name)
        y: Tensor = _GroupNorm.apply(self.widened(x), self.module.weight, self.module.bias, self)
        return y


class InstanceNormLayer(GroupNormLayer):
    """torch.nn.InstanceNorm1d/2d/3d on [B, C, ...], without running statistics."""

    def _check(self) -> None:
        if self.module.track_running_stats:
            raise self.refuse("tracks running statistics, which is not supported")

    def groups(self) -> int:
        """Channel groups that share a mean and a variance."""
        count: int = self.module.num_features
        return count

    def _call(self, x: Tensor) -> Tensor:
        self.module._check_input_dim(x)
        if x.dim() == self.module._get_no_batch_dim():
            raise self.refuse("needs a batch dimension")
        return super()._call(x)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: GroupNormLayer
    ) -> Tensor:
        x = x.contiguous()
        samples, channels, pixels = x.shape[0], x.shape[1], x[0, 0].numel() if x.numel() else 0
        groups = layer.groups()
        y, mean, rstd = torch.native_group_norm(
            x, weight, bias, samples, channels, pixels, groups, layer.module.eps
        )
        ctx.sizes = (samples, channels, pixels, groups)
        ctx.layer = layer
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        samples, channels, pixels, groups = ctx.sizes
        layer: GroupNormLayer = ctx.layer
        g = g.contiguous()
        gx = gw = gb = None
        if ctx.needs_input_grad[1]:
            normal = x.view(samples, groups, -1) - mean.view(samples, groups, 1)
            normal.mul_(rstd.view(samples, groups, 1))
            product = normal.view_as(g).mul_(g)
            gw = note_rows(layer.records["weight"], product.view(samples, channels, -1).sum(dim=2))
        if ctx.needs_input_grad[2]:
            gb = note_rows(layer.records["bias"], g.view(samples, channels, -1).sum(dim=2))
        if ctx.needs_input_grad[0]:
            gx = torch.ops.aten.native_group_norm_backward(
                g, x, mean, rstd, weight, *ctx.sizes, [True, False, False]
            )[0]
        return gx, gw, gb, None
