"""`cnn`: four small convolutions for images of 8x8 to 32x32; the default model.

No BatchNorm: its loss is a sum over samples, so per-sample gradient norms are exact for it, and a
sample scores the same whatever batch it is in.
"""

from __future__ import annotations

import torch
from torch import nn


class CNN(nn.Module):
    """[B, in_channels, H, W] -> logits [B, num_classes]; H, W >= 4. 68k weights for digits."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(in_channels, width),
            _block(width, width),
            nn.MaxPool2d(2),
            _block(width, 2 * width),
            _block(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.features(x))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.ReLU())
