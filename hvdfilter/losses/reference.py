"""The same loss in one process that holds the whole batch and its whole similarity matrix.

Plain torch, differentiated by autograd: what tests and benchmarks hold `hvdfilter.losses` against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def hard_negative(
    images: Tensor,
    captions: Tensor,
    margin: float = 0.2,
    *,
    hinges: str = "max",
    ids: Tensor | None = None,
) -> Tensor:
    """Losses [N] of all pairs; arguments as of `hvdfilter.losses.hard_negative`."""
    similar = F.normalize(images, dim=1) @ F.normalize(captions, dim=1).T
    matched = similar.diagonal()
    ids = torch.arange(len(images), device=images.device) if ids is None else ids
    same = ids[:, None] == ids
    total = torch.zeros_like(matched)
    for axis in (1, 0):  # an image's captions, a caption's images
        hinge = (margin + similar - matched.unsqueeze(axis)).relu().masked_fill(same, 0.0)
        total = total + (hinge.sum(axis) if hinges == "sum" else hinge.max(axis).values)
    return total
