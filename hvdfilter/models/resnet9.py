"""`resnet9`: the nine-layer residual network of the DAWNBench CIFAR-10 entries.

After David Page, "How to train your ResNet" (myrtle.ai, 2018): prep and three stages, the first and
third with one residual block, max-pools between, logits scaled by 1/8.
"""

from __future__ import annotations

import torch
from torch import nn


class ResNet9(nn.Module):
    """[B, in_channels, H, W] -> logits [B, num_classes]; H, W >= 8.

    width: channels of the first layer, 64 in the published network (6.6M weights).
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(in_channels, width),
            _block(width, 2 * width, pool=True),
            Residual(2 * width),
            _block(2 * width, 4 * width, pool=True),
            _block(4 * width, 8 * width, pool=True),
            Residual(8 * width),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, num_classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        # The constant keeps the first logits, and with them the first steps, small.
        return self.head(self.features(x)) * 0.125


class Residual(nn.Module):
    """x + two convolution blocks of x, channels unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(channels, channels), _block(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        return x + self.body(x)


def _block(in_channels: int, out_channels: int, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)
