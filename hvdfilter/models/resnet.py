"""`resnet18` in its CIFAR form and `resnet50` in its ImageNet form.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (CVPR 2016), with the stride of
a bottleneck on its 3x3 convolution (the "v1.5" that all published figures use), and the last
BatchNorm of each block starting at zero (Goyal et al. 2017), which large batches need.
"""

from __future__ import annotations

import torch
from torch import nn


class ResNet(nn.Module):
    """[B, in_channels, H, W] -> logits [B, num_classes].

    block: `Basic` or `Bottleneck`; depths: blocks in each of the four stages; stem: what comes
    before them, giving 64 channels.
    """

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        stem: nn.Module,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        stages, channels = [], 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            blocks = []
            for i in range(depth):
                blocks.append(block(channels, width, stride=2 if stage > 0 and i == 0 else 1))
                channels = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (Basic, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        features = self.pool(self.stages(self.stem(x))).flatten(1)
        return self.head(features)


class Basic(nn.Module):
    """Two 3x3 convolutions beside the shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.last_norm = nn.BatchNorm2d(width)
        self.body = nn.Sequential(
            *_conv_norm(channels, width, 3, stride),
            nn.ReLU(inplace=True),
            _conv(width, width, 3, 1),
            self.last_norm,
        )
        self.shortcut = _shortcut(channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, beside the shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.last_norm = nn.BatchNorm2d(4 * width)
        self.body = nn.Sequential(
            *_conv_norm(channels, width, 1, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            _conv(width, 4 * width, 1, 1),
            self.last_norm,
        )
        self.shortcut = _shortcut(channels, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18(in_channels: int, num_classes: int) -> ResNet:
    """For 32x32: a 3x3 stem without pooling; 11,173,962 weights for 3 channels, 10 classes."""
    stem = nn.Sequential(*_conv_norm(in_channels, 64, 3, 1), nn.ReLU(inplace=True))
    return ResNet(Basic, (2, 2, 2, 2), stem, num_classes)


def resnet50(in_channels: int, num_classes: int) -> ResNet:
    """For 224x224: a 7x7 stem and a max-pool; 25,557,032 weights for 3 channels, 1000 classes."""
    stem = nn.Sequential(
        *_conv_norm(in_channels, 64, 7, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    return ResNet(Bottleneck, (3, 4, 6, 3), stem, num_classes)


def _conv(in_channels: int, out_channels: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


def _conv_norm(in_channels: int, out_channels: int, size: int, stride: int) -> list[nn.Module]:
    return [_conv(in_channels, out_channels, size, stride), nn.BatchNorm2d(out_channels)]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(*_conv_norm(in_channels, out_channels, 1, stride))
