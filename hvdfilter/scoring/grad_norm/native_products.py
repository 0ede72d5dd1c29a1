"""The products of `products.py` by the native module: float32 on the CPU, inputs read in place.

Never holds a product in memory: each tile of a sample's weight gradient is squared and added to
the batch's gradient while it is still in registers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hvdfilter import native

# What the native products cost beyond the ordinary weight gradient that they replace, and what a
# Gram form costs beside it, per sample and in multiply-adds (measured; README.md has the table).
SLOWER = 0.15  # share of the product's own operations, against a tuned matrix library
REDUCE = 4  # for each number of a product: squared, loaded, added, stored
UNFOLD = 24  # for each number of an unfolded input: one scalar load and store


def suits(a: Tensor, g: Tensor, length: int, inputs: int, outputs: int, unfolds: bool) -> bool:
    """Whether the native module takes these operands, and is the cheaper of the two forms."""
    if a.dtype != torch.float32 or g.dtype != torch.float32 or not a.numel() or not g.numel():
        return False
    if a.device.type != "cpu" or g.device.type != "cpu":
        return False
    product = (SLOWER * length + REDUCE) * inputs * outputs
    gram = length * length * (inputs + outputs) + (UNFOLD * length * inputs if unfolds else 0)
    return length > 1 and product < gram


def linear(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squares [B], weight gradient [M, K] and bias rows [B, M]; a [B, T, K], g [B, T, M]."""
    gradient = a.new_empty(g.shape[2], a.shape[2])
    squares, rows = _sample_products(a.mT, g.mT, gradient.unsqueeze(2), [1], [0], [1], 1)
    return squares, gradient, rows


def convolution(
    x: Tensor,
    g: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Squares [B], weight gradient of `shape` and bias rows [B, M]; x [B, C, ...]."""
    gradient = x.new_empty(shape)
    squares, rows = _sample_products(x, g, gradient, stride, padding, dilation, groups)
    return squares, gradient, rows


def _sample_products(
    x: Tensor,
    g: Tensor,
    gradient: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor]:
    lacking = 5 - x.dim()

    def axes(values: Sequence[int], fill: int) -> list[int]:
        return [fill] * lacking + list(values)

    def strides(t: Tensor) -> list[int]:
        return [t.stride(0), t.stride(1), *axes(t.stride()[2:], 0)]

    samples, channels = x.shape[:2]
    squares = x.new_empty(samples, dtype=torch.float64)
    rows = x.new_empty(samples, g.shape[1])
    native.cpu().sample_products(
        x.data_ptr(),
        strides(x),
        g.data_ptr(),
        strides(g),
        samples,
        channels,
        g.shape[1],
        groups,
        axes(x.shape[2:], 1),
        axes(g.shape[2:], 1),
        axes(gradient.shape[2:], 1),
        axes(stride, 1),
        axes(padding, 0),
        axes(dilation, 1),
        squares.data_ptr(),
        rows.data_ptr(),
        gradient.data_ptr(),
        torch.get_num_threads(),
    )
    return squares, rows
