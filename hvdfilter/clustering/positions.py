"""A weight's per-sample gradient `G_i = sum_t g_it (x) a_it`, applied to factors and never formed.

t runs over the positions of a Linear (1, or a sequence) or the output pixels of a convolution. The
inputs a_it of a convolution are not laid out: with filters in their place, it does the sum itself.
Shapes: B samples, G groups, T positions, K inputs and M outputs to a position of one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hvdfilter.scoring.grad_norm.convolution import CONVOLUTIONS, ConvLayer
from hvdfilter.scoring.grad_norm.layer import Layer


@dataclass(frozen=True)
class Use:
    """One call of a layer: its inputs as `Reader.product` has them, output gradients [B, G, M, T].

    Both may be those of a few samples of the batch.
    """

    layer: Layer
    x: Tensor
    g: Tensor

    @staticmethod
    def of(layer: Layer, x: Tensor, g: Tensor) -> Use:
        """Of what the layer hands to a reader."""
        if isinstance(layer, ConvLayer):
            shape = g.shape[0], layer.groups, g.shape[1] // layer.groups, g.shape[2:].numel()
            return Use(layer, x, g.reshape(shape))
        return Use(layer, x, g.mT.unsqueeze(1))

    def some(self, index: list[int]) -> Use:
        """Of these samples of the batch."""
        return Use(self.layer, self.x[index], self.g[index])

    def filtered(self, inner: Tensor) -> Tensor:
        """`a_it . inner_k`, [B, G, k, T]; inner [k, K]."""
        if not isinstance(self.layer, ConvLayer):
            return (self.x @ inner.T).mT.unsqueeze(1)
        conv = self.layer
        h = CONVOLUTIONS[conv.dims](
            self.x,
            self._filters(inner),
            None,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        )
        return h.reshape(len(h), conv.groups, len(inner), h.shape[2:].numel())

    def summed(self, p: Tensor) -> Tensor:
        """`sum_{i,t} p_ikt a_it` over samples and groups, [k, K]; p [B, G, k, T]."""
        if not isinstance(self.layer, ConvLayer):
            return p.squeeze(1).transpose(0, 1).flatten(1) @ self.x.flatten(0, 1)
        conv, k = self.layer, p.shape[2]
        kernel = conv.module.kernel_size
        filters = p.new_empty(conv.groups * k, self.x.shape[1] // conv.groups, *kernel)
        pixels = [
            (size - conv.dilation[i] * (kernel[i] - 1) - 1 + 2 * conv.padding[i]) // conv.stride[i]
            + 1
            for i, size in enumerate(self.x.shape[2:])
        ]
        spread = p.reshape(len(p), conv.groups * k, *pixels)
        total = conv.backward(spread, self.x, filters, [False, True, False])[1]
        return total.view(conv.groups, k, -1).sum(dim=0)

    def unfolded(self) -> Tensor:
        """The inputs themselves, [B, G, T, K]: for a few samples only."""
        if isinstance(self.layer, ConvLayer):
            return self.layer.unfold(self.x)
        return self.x.unsqueeze(1)

    def _filters(self, inner: Tensor) -> Tensor:
        conv = self.layer
        assert isinstance(conv, ConvLayer)
        channels = self.x.shape[1] // conv.groups
        filters = inner.reshape(len(inner), channels, *conv.module.kernel_size)
        return filters.repeat(conv.groups, *[1] * (filters.dim() - 1))


def rank_one(uses: list[Use], rounds: int = 3) -> tuple[Tensor, Tensor]:
    """The outer factor [n, G M] and the inner one [n, K] nearest to each sample's gradient.

    By power iteration from the position with the largest product; exact where there is but one.
    """
    a = torch.cat([use.unfolded() for use in uses], dim=2)
    g = torch.cat([use.g for use in uses], dim=3)
    samples, groups, outputs, positions = g.shape
    size = g.square().sum(dim=2) * a.square().sum(dim=3)
    top = size.flatten(1).argmax(dim=1)
    outer = g.new_zeros(samples, groups, outputs)
    each = torch.arange(samples, device=g.device)
    group, place = top // positions, top % positions
    outer[each, group] = g[each, group, :, place]
    inner = a.new_zeros(samples, a.shape[3])
    for _ in range(rounds):
        outer = _unit(outer.flatten(1)).view_as(outer)
        p = (outer.unsqueeze(2) @ g).squeeze(2)
        inner = (p.unsqueeze(2) @ a).squeeze(2).sum(dim=1)
        h = (a @ _unit(inner)[:, None, :, None]).squeeze(3)
        outer = (g @ h.unsqueeze(3)).squeeze(3)
    return outer.flatten(1), _unit(inner)


def _unit(rows: Tensor) -> Tensor:
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, torch.ones_like(length))
