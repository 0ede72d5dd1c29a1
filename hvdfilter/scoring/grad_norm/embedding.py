"""Embedding tables: a sample's gradient is one row for each distinct token it holds.

Never forms a [B, V, d] gradient: rows are added up only for (sample, token) pairs that occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hvdfilter.scoring.grad_norm.layer import Layer
from hvdfilter.scoring.grad_norm.ledger import Piece
from hvdfilter.scoring.grad_norm.rows import row_squares


class EmbeddingLayer(Layer):
    """torch.nn.Embedding on ids [B, ...]; `padding_idx` gets no gradient, as in torch."""

    families: ClassVar[dict[str, str]] = {"weight": "tokens"}

    def _check(self) -> None:
        if self.module.scale_grad_by_freq:
            raise self.refuse("scales gradients by token counts over the batch: samples couple")
        if self.module.max_norm is not None or self.module.sparse:
            raise self.refuse("uses max_norm or sparse gradients, which are not supported")

    def _call(self, x: Tensor) -> Tensor:
        if x.dim() < 1:
            raise self.refuse("needs a batch dimension")
        self.ledger.batch(x.shape[0], self.name)
        y: Tensor = _Embedding.apply(x, self.module.weight, self)
        return y


@dataclass
class TokenPiece:
    """Ids [B, T] and output gradients [B, T, d]; `padding` ids (-1 for none) count for nothing."""

    ids: Tensor
    g: Tensor
    padding: int

    def combine(self, others: list[Piece]) -> Tensor:
        """See Piece."""
        pieces = [self, *(other for other in others if isinstance(other, TokenPiece))]
        assert len(pieces) == 1 + len(others)
        kept = [piece.g * (piece.ids != piece.padding).unsqueeze(-1) for piece in pieces]
        return token_squares(torch.cat([p.ids for p in pieces], dim=1), torch.cat(kept, dim=1))


def token_squares(ids: Tensor, g: Tensor) -> Tensor:
    """Squared norms [B], float64, of per-sample table gradients; ids [B, T], g [B, T, d]."""
    samples = torch.arange(ids.shape[0], device=ids.device).unsqueeze(1).expand_as(ids)
    span = int(ids.max()) + 1 if ids.numel() else 1
    pairs, place = torch.unique(samples * span + ids, return_inverse=True)
    rows = g.new_zeros(pairs.numel(), g.shape[-1]).index_add_(0, place.flatten(), g.flatten(0, 1))
    squares = torch.zeros(ids.shape[0], dtype=torch.float64, device=ids.device)
    return squares.index_add_(0, pairs // span, row_squares(rows))


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, layer: EmbeddingLayer) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(ids)
        return F.embedding(ids, weight, layer.module.padding_idx)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        layer: EmbeddingLayer = ctx.layer
        record = layer.records["weight"]
        padding = layer.module.padding_idx
        padding = -1 if padding is None else padding
        gradient = torch.ops.aten.embedding_dense_backward(
            g, ids, layer.module.num_embeddings, padding, False
        )
        flat = ids.reshape(ids.shape[0], -1).long()
        piece = TokenPiece(flat, g.reshape(*flat.shape, g.shape[-1]), padding)
        if record.alone:
            gradient = record.settle(piece.combine([]), gradient)
        else:
            gradient = record.stash(piece, gradient)
        return None, gradient, None
