"""Sum of hinges: each image and each caption against all negatives of all ranks (VSE0).

The sum of an image is over its row, which this rank holds; that of a caption over a column, which
all ranks hold a part of. The backward computes the rows once more instead of keeping them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.losses.exchange import Exchange
from hvdfilter.losses.rows import Rows


class Summed:
    """The losses of the own pairs, and their gradients by the embeddings of all ranks."""

    def __init__(self, rows: Rows, exchange: Exchange, margin: float) -> None:
        self._rows, self._exchange = rows, exchange
        images = rows.images
        matched = rows.matched()
        # What a similarity needs to count: of a row, and of a column.
        self._row_lift = (margin - matched)[:, None]
        self._column_lift = margin - exchange.gather(matched)
        by_image = images.new_zeros(len(images))
        self._active = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        sums = images.new_zeros(len(rows.captions), dtype=torch.float64)
        counts = torch.zeros(len(rows.captions), dtype=torch.int64, device=images.device)
        for part, block in rows.blocks():
            hinges = (block + self._row_lift[part]).relu_()
            by_image[part] = hinges.sum(1)
            self._active[part] = hinges.count_nonzero(1)
            hinges = block.add_(self._column_lift).relu_()
            sums += hinges.sum(0)
            counts += hinges.count_nonzero(0)
        parts, parts_active = exchange.to_owners(sums, counts)
        self._active += parts_active.sum(0).long()
        self._losses = by_image + parts.sum(0).to(by_image.dtype)

    def losses(self) -> Tensor:
        """[B], one a pair."""
        return self._losses

    def gradients(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Collective. Of the sum over all ranks of losses times weight [B], by own embeddings."""
        rows, exchange = self._rows, self._exchange
        everyone = exchange.gather(weight)
        images, captions = torch.zeros_like(rows.images), torch.zeros_like(rows.captions)
        for part, block in rows.blocks():
            factor = (block + self._row_lift[part] > 0) * weight[part, None]
            factor += (block.add_(self._column_lift) > 0) * everyone
            torch.mm(factor, rows.captions, out=images[part])
            captions.addmm_(factor.T, rows.images[part])
        matched = (weight * self._active)[:, None]
        everything = torch.arange(len(captions), device=captions.device)
        own = exchange.sum_at_owners(everything, captions)
        return images - matched * rows.own_captions, own - matched * rows.images
