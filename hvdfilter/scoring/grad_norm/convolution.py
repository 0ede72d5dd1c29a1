"""Conv1d, Conv2d and Conv3d: each output pixel is one position of a product.

Never unfolds a whole batch: the inputs under the kernel are laid out for a few samples at a time,
and not at all where the native products read them in place.
"""

from __future__ import annotations

import math
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

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class ConvLayer(Layer):
    """torch.nn.Conv1d/2d/3d on [B, C, ...]: groups, stride, dilation, every padding."""

    families: ClassVar[dict[str, str]] = {"weight": "product", "bias": "rows"}

    def _check(self) -> None:
        module = self.module
        self.dims: int = len(module.kernel_size)
        self.groups: int = module.groups
        self.stride = list(module.stride)
        self.dilation = list(module.dilation)
        # What autograd must see as padding of its own: everything but symmetric zeros.
        self.outer: list[int] | None = None
        self.padding = [0] * self.dims
        if module.padding_mode != "zeros" or module.padding == "same":
            self.outer = list(module._reversed_padding_repeated_twice)
        elif module.padding != "valid":
            self.padding = list(module.padding)

    def _call(self, x: Tensor) -> Tensor:
        if x.dim() != self.dims + 2:
            raise self.refuse("needs a batch dimension")
        self.ledger.batch(x.shape[0], self.name)
        if self.outer is not None:
            mode = self.module.padding_mode
            x = F.pad(x, self.outer, mode="constant" if mode == "zeros" else mode)
        y: Tensor = _Conv.apply(x, self.module.weight, self.module.bias, self)
        return y

    def backward(self, g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> list[Tensor]:
        """torch's own convolution backward."""
        parts: list[Tensor] = torch.ops.aten.convolution_backward(
            g,
            x,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * self.dims,
            self.groups,
            wanted,
        )
        return parts

    def unfold(self, x: Tensor) -> Tensor:
        """Inputs under the kernel at every output pixel: [b, G, T, C / G * kernel]."""
        ends = [pad for pad in reversed(self.padding) for _ in range(2)]
        x = F.pad(x, ends) if any(ends) else x
        for i, kernel in enumerate(self.module.kernel_size):
            span = self.dilation[i] * (kernel - 1) + 1
            x = x.unfold(2 + i, span, self.stride[i])[..., :: self.dilation[i]]
        n = self.dims
        x = x.unflatten(1, (self.groups, -1))
        pixels, taps = range(3, 3 + n), range(3 + n, 3 + 2 * n)
        return x.permute(0, 1, *pixels, 2, *taps).flatten(2 + n).flatten(2, 1 + n)

    def weight_gradient(self, x: Tensor, weight: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """Note the weight's norms. Also the bias's rows [B, M], where they came along."""
        record = self.records["weight"]
        if record.reader is not None:
            record.reader.product(self, x, g)
        length = math.prod(g.shape[2:])
        inputs, outputs = weight[0].numel(), weight.shape[0] // self.groups
        by_group = g.unflatten(1, (self.groups, outputs)).flatten(3).mT

        def positions(i: int, j: int) -> Tensor:
            return self.unfold(x[i:j])

        if not record.alone:
            gradient = self.backward(g, x, weight, [False, True, False])[1]
            return record.stash(ProductPiece(positions, by_group, inputs), gradient), None
        if native_products.suits(x, g, length, inputs, outputs, unfolds=True):
            squares, gradient, rows = native_products.convolution(
                x, g, weight.shape, self.stride, self.padding, self.dilation, self.groups
            )
            return record.settle(squares, gradient), rows
        if gram_is_cheaper(length, inputs, outputs):
            squares = sample_squares(positions, by_group, inputs)
            gradient = self.backward(g, x, weight, [False, True, False])[1]
        else:
            squares, total = sample_products(positions, by_group, inputs)
            gradient = total.view(weight.shape)
        return record.settle(squares, gradient), None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: ConvLayer
    ) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, weight)
        convolve = CONVOLUTIONS[layer.dims]
        return convolve(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = (tensor.to(g.dtype) for tensor in ctx.saved_tensors)
        layer: ConvLayer = ctx.layer
        gx = gw = gb = rows = None
        if ctx.needs_input_grad[0]:
            gx = layer.backward(g, x, weight, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            gw, rows = layer.weight_gradient(x, weight, g)
        if ctx.needs_input_grad[2]:
            gb = note_rows(layer.records["bias"], g.flatten(2).sum(dim=2) if rows is None else rows)
        return gx, gw, gb, None
