"""The network as a pass without a backward runs it: normalisation folded in, channels last.

A CPU convolves images whose channels lie side by side in up to a third less time, and a BatchNorm
that only applies its statistics is a part of the convolution before it. Both are of a copy: the
weights that train stay as Horovod wants them, and no statistic moves.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Networks known to take either layout; one of the user's own may view its features as flat.
EITHER_LAYOUT = frozenset({"cnn", "resnet9", "resnet18", "resnet50"})


class _ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def forward_only(
    prepare: nn.Module, model: nn.Module, name: str, device: torch.device
) -> nn.Module:
    """uint8 [B, C, H, W] -> logits [B, classes] of `model` as it is now, in eval mode.

    name: by which `models.make` knows it. Logits are those of `model` but for rounding.
    """
    if device.type == "cpu" and name.partition(":")[0] in EITHER_LAYOUT:
        return nn.Sequential(prepare, _ChannelsLast(), _folded(model))
    return nn.Sequential(prepare, model)


def _folded(model: nn.Module) -> nn.Module:
    folded = copy.deepcopy(model).eval()
    for part in folded.modules():
        if isinstance(part, nn.Sequential):
            for at in range(len(part) - 1):
                conv, norm = part[at], part[at + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[at], part[at + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return folded
