"""Max of hinges: each image and each caption against its hardest negative of all ranks (VSE++).

A rank holds the similarities of its images with all captions. The hardest caption of an image is
the largest of its row, found here alone. The hardest image of a caption is the largest of a column,
which all ranks hold a part of: each tells the caption's owner its best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.losses.exchange import Exchange
from hvdfilter.losses.rows import Rows, add_rows, column_maxima


class Hardest:
    """The losses of the own pairs, and their gradients by the embeddings of all ranks."""

    def __init__(self, rows: Rows, exchange: Exchange, margin: float) -> None:
        self._rows, self._exchange = rows, exchange
        images, captions = rows.images, rows.captions
        nowhere = float("-inf")
        by_image = images.new_full((len(images),), nowhere)
        self._caption_at = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        best = images.new_full((len(captions),), nowhere)
        best_at = torch.zeros(len(captions), dtype=torch.int64, device=images.device)
        for part, block in rows.blocks():
            torch.max(block, 1, out=(by_image[part], self._caption_at[part]))
            highest, at = column_maxima(block)
            better = highest > best  # of equals the first
            best = torch.where(better, highest, best)
            best_at = torch.where(better, at + (exchange.start + part.start), best_at)
        parts, parts_at = exchange.to_owners(best, best_at)
        by_caption, rank = parts.max(0)
        self._image_at = parts_at.gather(0, rank[None])[0].long()
        matched = rows.matched()
        self._image_gap = by_image + margin - matched
        self._caption_gap = by_caption.to(matched.dtype) + margin - matched

    def losses(self) -> Tensor:
        """[B], one a pair."""
        return self._image_gap.relu() + self._caption_gap.relu()

    def gradients(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Collective. Of the sum over all ranks of losses times weight [B], by own embeddings."""
        rows, exchange = self._rows, self._exchange
        zero = weight.new_zeros(())
        by_image = torch.where(self._image_gap > 0, weight, zero)
        by_caption = torch.where(self._caption_gap > 0, weight, zero)
        # A caption's hardest image belongs to a rank that has to be told with what weight.
        told, told_at = exchange.gather_columns(by_caption, self._image_at)
        mine = (told != 0) & (told_at >= exchange.start) & (told_at < exchange.stop)
        caption = mine.nonzero()[:, 0]
        own = by_image.nonzero()[:, 0]
        image_at = torch.cat([own, told_at[caption].long() - exchange.start])
        caption_at = torch.cat([self._caption_at[own], caption])
        factor = torch.cat([by_image[own], told[caption].to(weight.dtype)])[:, None]

        matched = -(by_image + by_caption)[:, None]
        images = matched * rows.own_captions
        add_rows(images, image_at, factor * rows.captions[caption_at])
        touched, place = caption_at.unique(return_inverse=True)
        sums = rows.images.new_zeros(len(touched), rows.images.shape[1])
        add_rows(sums, place, factor * rows.images[image_at])
        captions = exchange.sum_at_owners(touched, sums)
        captions += matched * rows.images
        return images, captions
