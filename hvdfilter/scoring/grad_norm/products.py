"""Per-sample gradients that are sums of outer products: `G_i = sum_t g_it (x) a_it`.

Every Linear and Conv weight has this form. The norm comes from the Gram form
`||G_i||^2 = sum_{s,t} <a_is, a_it> <g_is, g_it>` or from the products themselves, a few samples at
a time; the products then also add up to the weight's gradient, which saves the ordinary one.
Plain torch, any device and dtype; the native form of the same is in `native_products.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hvdfilter.scoring.grad_norm.ledger import Piece
from hvdfilter.scoring.grad_norm.rows import row_squares

# Elements of scratch that a group of samples may take: 8 MiB of float32, so it stays in cache.
SCRATCH = 1 << 21

# positions [b, G, T, K] of samples i to j; G groups, T positions, K inputs to each output
Positions = Callable[[int, int], Tensor]


def gram_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Whether two T x T Gram matrices hold fewer numbers than one d_in x d_out product."""
    return 2 * positions * positions <= inputs * outputs


def unit_samples(g: Tensor) -> tuple[Tensor, Tensor]:
    """`g` [b, ...] with each sample scaled to a largest magnitude of one, and the scales [b].

    So that float32 squares of an easy sample's gradient do not underflow.
    """
    scale = g.flatten(1).abs().amax(dim=1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return g / scale.view(-1, *[1] * (g.dim() - 1)), scale.double()


def gram_squares(a: Tensor, g: Tensor) -> Tensor:
    """Squared norms [b], float64, by the Gram form; a [b, G, T, K], g [b, G, T, M]."""
    unit, scale = unit_samples(g)
    if a.shape[2] == 1:
        squares = row_squares_of_groups(a) * row_squares_of_groups(unit)
        return squares.sum(dim=1) * scale.square()
    pairs = (a @ a.mT) * (unit @ unit.mT)
    # Positions that cancel can leave a sum that rounds below zero.
    return pairs.flatten(1).double().sum(dim=1).clamp_(min=0) * scale.square()


def row_squares_of_groups(x: Tensor) -> Tensor:
    """[b, G] squared norms of x [b, G, ...], float64."""
    return row_squares(x.flatten(0, 1)).view(x.shape[:2])


def product_squares(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms [b] and the summed products [G, M, K]; a [b, G, T, K], g [b, G, T, M]."""
    products = g.mT @ a
    return row_squares(products), products.sum(dim=0)


def sample_squares(positions: Positions, g: Tensor, inputs: int) -> Tensor:
    """Squared norms [B] alone, in the cheaper form; g [B, G, T, M]."""
    samples, groups, length, outputs = g.shape
    gram = gram_is_cheaper(length, inputs, outputs)
    squares = []
    step = group_size(groups, length, inputs, outputs)
    for i in range(0, samples, step):
        a, part = positions(i, i + step), g[i : i + step]
        squares.append(gram_squares(a, part) if gram else product_squares(a, part)[0])
    return torch.cat(squares) if squares else g.new_zeros(0, dtype=torch.float64)


def sample_products(positions: Positions, g: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """Squared norms [B] and the weight gradient [G, M, K] by products alone; g [B, G, T, M]."""
    samples, groups, length, outputs = g.shape
    total = g.new_zeros(groups, outputs, inputs)
    squares = [g.new_zeros(0, dtype=torch.float64)]
    step = group_size(groups, length, inputs, outputs)
    for i in range(0, samples, step):
        part, summed = product_squares(positions(i, i + step), g[i : i + step])
        squares.append(part)
        total += summed
    return torch.cat(squares), total


def group_size(groups: int, length: int, inputs: int, outputs: int) -> int:
    """Samples taken at a time, so that unfolded inputs and products stay within SCRATCH."""
    return max(1, SCRATCH // (groups * max(length * inputs, min(length**2, inputs * outputs), 1)))


@dataclass
class ProductPiece:
    """One use of a weight, as its positions and output gradients [B, G, T, M]."""

    positions: Positions
    g: Tensor
    inputs: int

    def combine(self, others: list[Piece]) -> Tensor:
        """See Piece."""
        # Uses of one weight are just more positions: their cross terms come by themselves.
        pieces = [self, *(other for other in others if isinstance(other, ProductPiece))]
        assert len(pieces) == 1 + len(others)

        def positions(i: int, j: int) -> Tensor:
            return torch.cat([piece.positions(i, j) for piece in pieces], dim=2)

        return sample_squares(positions, torch.cat([p.g for p in pieces], dim=2), self.inputs)
