"""This rank's rows of the similarity matrix, a block of them at a time.

The rows of all ranks together are the whole matrix, once: a rank needs everybody's captions, but
only its own images. Nothing here communicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Similarities held at once: 16 MiB of float32, enough for a matrix product to run at full speed.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Rows:
    """Similarities of own images [B, D] with all captions [N, D], all of length 1.

    start: where the own captions begin in those of all ranks. ids, all_ids: int64 [B] and [N];
    pairs of one id are no negatives of each other. None: each pair is one of its own.
    """

    images: Tensor
    captions: Tensor
    start: int
    ids: Tensor | None = None
    all_ids: Tensor | None = None

    @property
    def own_captions(self) -> Tensor:
        """[B, D], beside the own images."""
        return self.captions[self.start : self.start + len(self.images)]

    def matched(self) -> Tensor:
        """Similarity of each own image with its own caption, [B]."""
        return (self.images * self.own_captions).sum(1)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Places of a block of own images, and their similarities [b, N]; -inf for no negative."""
        step = max(1, BLOCK // len(self.captions))
        buffer = self.images.new_empty(min(step, len(self.images)), len(self.captions))
        for at in range(0, len(self.images), step):
            part = slice(at, min(at + step, len(self.images)))
            block = torch.mm(
                self.images[part], self.captions.T, out=buffer[: part.stop - part.start]
            )
            if self.ids is None or self.all_ids is None:
                block.diagonal(self.start + at).fill_(float("-inf"))
            else:
                block.masked_fill_(self.ids[part, None] == self.all_ids, float("-inf"))
            yield part, block


def add_rows(target: Tensor, at: Tensor, rows: Tensor) -> None:
    """target[at] += rows, where a place may come several times; always the same bits."""
    if target.is_cuda:  # whose index_add_ adds in any order
        target.index_put_((at,), rows, accumulate=True)
    else:
        target.index_add_(0, at, rows)
