"""Network: what a batch of images goes through on its way to the logits, the same in every pass.

Normalisation, memory layout, precision, model. The weights stay in float32 and in the layout that
Horovod takes; it has none of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hvdfilter import models
from hvdfilter.data import Images, Normalize
from hvdfilter.training.config import TrainConfig
from hvdfilter.world import World

# Networks known to take either layout; one of the user's own may view its features as flat.
EITHER_LAYOUT = frozenset({"cnn", "resnet9", "resnet18", "resnet50"})


class Network(nn.Module):
    """uint8 (or float, 0 to 255) [B, C, H, W] -> logits [B, classes], float32 or bfloat16.

    precision: bfloat16 has torch autocast the model: its products in bfloat16, its sums,
    statistics and gradients of weights in float32. channels_last: its images have their channels
    side by side, as convolutions are fastest; the weights stay contiguous, since Horovod reduces
    no other gradients.
    """

    def __init__(
        self,
        prepare: nn.Module,
        model: nn.Module,
        precision: str = "float32",
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.prepare, self.model = prepare, model
        self.precision, self.channels_last = precision, channels_last

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        x = self.prepare(x)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.precision == "float32":
            logits: Tensor = self.model(x)
        else:
            with torch.autocast(x.device.type, torch.bfloat16):
                logits = self.model(x)
        return logits


def either_layout(name: str) -> bool:
    """Whether the model that `models.make` knows by `name` takes images channels last."""
    return name.partition(":")[0] in EITHER_LAYOUT


def build(config: TrainConfig, images: Images, world: World) -> Network:
    """Collective. The network that a run begins with, on this rank's device."""
    with world.collective.errors_shared():
        torch.manual_seed(config.seed)
        channels, height, _ = images.shape
        model = models.make(config.model, channels, images.num_classes, height)
    layout = config.channels_last
    if layout is None:
        layout = either_layout(config.model)
    prepare = Normalize(images.mean, images.std)
    return Network(prepare, model, config.precision, layout).to(world.device)
