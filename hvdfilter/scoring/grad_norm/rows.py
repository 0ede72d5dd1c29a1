"""Per-sample gradients that are short rows: biases, and the scales of normalisation layers.

A row [B, D] is never larger than the activation it is summed from, so it is formed outright.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hvdfilter.scoring.grad_norm.ledger import ParameterRecord, Piece


def row_squares(rows: Tensor) -> Tensor:
    """Squared L2 norm of each row of `rows` [B, ...], float64 [B].

    Squared in float64: a float32 square is 0 below 1e-19, where an easy sample's gradient lies.
    """
    return (
        rows.flatten(1).double().square_().sum(dim=1)
        if rows.dtype != torch.float64
        else (rows.flatten(1).square().sum(dim=1))
    )


@dataclass
class RowPiece:
    """Per-sample gradients as they are, [B, D]."""

    rows: Tensor

    def combine(self, others: list[Piece]) -> Tensor:
        """See Piece."""
        rows = self.rows
        for other in others:
            assert isinstance(other, RowPiece)
            rows = rows + other.rows
        return row_squares(rows)


def note_rows(record: ParameterRecord, rows: Tensor) -> Tensor:
    """Enter per-sample gradients `rows` [B, D] and return the parameter's gradient."""
    if record.reader is not None:
        record.reader.rows(rows)
    gradient = rows.sum(dim=0).view_as(record.parameter)
    if record.alone:
        return record.settle(row_squares(rows), gradient)
    return record.stash(RowPiece(rows), gradient)
