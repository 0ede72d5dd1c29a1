"""The optimiser of a run: which parameters decay, and the rate that the global batch asks for.

When the rate rises and falls is the schedule's; Horovod's wrapper is `ring.distribute`'s.
"""

from __future__ import annotations

from typing import Any

import torch

from hvdfilter.training import ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.world import World


def build(
    config: TrainConfig, model: torch.nn.Module, world: World
) -> tuple[torch.optim.Optimizer, float]:
    """Optimiser, averaging gradients over the ranks, and its peak rate."""
    peak = config.lr * config.batch_size * world.size / 256
    # Biases and normalisation (all 1-D) are not decayed: He et al. 2019, "Bag of tricks".
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain},
    ]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        groups, lr=peak, momentum=config.momentum, nesterov=config.momentum > 0
    )
    return ring.distribute(optimizer, model, world), peak
