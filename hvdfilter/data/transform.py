"""Batches made ready for the model, on the batch's own device, without a loop over samples.

Random choices are hashes of (seed, epoch, id): a sample is augmented alike on any number of ranks
and in any batch. Nothing here draws from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from hvdfilter.data.counter import hash_torch, key
from hvdfilter.data.images import Augmentation

_PURPOSE = 0xA46  # keeps these bits apart from others drawn for the same seed and epoch
_NATURAL = Augmentation(pad=4, flip=True)


class Normalize(torch.nn.Module):
    """uint8 [B, C, H, W] -> float32, `(x / 255 - mean) / std` per channel (white = 1)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean_, std_ = torch.tensor(mean).double(), torch.tensor(std).double()
        self.register_buffer("scale", (1 / (255 * std_)).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean_ / std_).float().view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return torch.addcmul(self.shift, x.float(), self.scale)


def augment(
    x: torch.Tensor,
    ids: torch.Tensor,
    epoch: int,
    seed: int,
    augmentation: Augmentation = _NATURAL,
) -> torch.Tensor:
    """Random crop of the image padded with zeros, then a random left-right flip.

    x: [B, C, H, W] of any dtype (uint8 before `Normalize`, so that the padding is black);
    ids: int64 [B] on any device. Each of the (2 pad + 1)^2 crops has the same probability up to
    2^-16, a flip has 1/2. Returns a new tensor, or x itself where there is nothing to do.
    """
    pad, flip = augmentation.pad, augmentation.flip
    if pad == 0 and not flip:
        return x
    batch, channels, height, width = x.shape
    bits = hash_torch(ids.to(x.device), key(seed, epoch, _PURPOSE))
    # Multiply-and-shift maps 16 random bits to [0, 2 pad].
    top = ((bits & 0xFFFF) * (2 * pad + 1)) >> 16
    left = (((bits >> 16) & 0xFFFF) * (2 * pad + 1)) >> 16
    columns = torch.arange(width, device=x.device).expand(batch, width)
    if flip:
        mirrored = ((bits >> 32) & 1).bool()
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    rows = torch.arange(height, device=x.device) + top[:, None]
    columns = columns + left[:, None]
    padded = F.pad(x, (pad, pad, pad, pad))
    place = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).flatten(1)[:, None]
    crop = padded.flatten(2).gather(2, place.expand(batch, channels, -1))
    return crop.view(batch, channels, height, width)
