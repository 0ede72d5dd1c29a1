"""The optimiser of a run: which parameters decay, and the rate that the global batch asks for.

When the rate rises and falls is the schedule's; Horovod's wrapper is `ring.distribute`'s.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch

from hvdfilter.errors import InstallError
from hvdfilter.training import ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.world import World

#: Samples a step that `lr` is given for.
BASE_BATCH = 256


def check(config: TrainConfig) -> None:
    """Raise `InstallError` where the library of the run's optimiser is missing."""
    if config.optimizer != "sgd":
        _library(config.optimizer)


def rate_for(config: TrainConfig, samples: int) -> float:
    """The peak rate of a global batch of `samples`.

    Linear in the batch (Goyal et al. 2017, arXiv:1706.02677), as LARS was published with too; by
    its square root for LAMB (You et al. 2020, arXiv:1904.00962).
    """
    larger = samples / BASE_BATCH
    return config.rate * (math.sqrt(larger) if config.optimizer == "lamb" else larger)


def build(
    config: TrainConfig, model: torch.nn.Module, world: World
) -> tuple[torch.optim.Optimizer, float]:
    """Optimiser, averaging gradients over the ranks, and its peak rate."""
    peak = rate_for(config, config.batch_size * config.accumulate * world.size)
    # Biases and normalisation (all 1-D) are not decayed: He et al. 2019, "Bag of tricks". Nor does
    # LARS or LAMB adapt their rates to their norms, as You et al. 2017 and 2020 have it.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    with world.collective.errors_shared():
        optimizer = _make(config, groups, peak)
    passes, half = config.accumulate, config.fp16_allreduce
    return ring.distribute(optimizer, model, world, fp16=half, passes=passes), peak


def _make(config: TrainConfig, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    momentum = config.momentum
    if config.optimizer == "sgd":
        # All at once, it would add the momentum into gradients that extrapolation wants again.
        foreach = False if config.extrapolation else None
        return torch.optim.SGD(
            groups, lr=lr, momentum=momentum, nesterov=momentum > 0, foreach=foreach
        )
    library = _library(config.optimizer)
    if config.optimizer == "lars":  # which leaves 1-D parameters alone by itself
        made = library.LARS(groups, lr=lr, momentum=momentum)
    else:
        groups[1]["adam"] = True  # a trust ratio of 1
        # As published: decay within the trust ratio, not apart from it, and no correction of the
        # rate, which by default multiplies the first step by 1 / (1 - momentum).
        published = {"weight_decouple": False, "adam_debias": True}
        made = library.Lamb(groups, lr=lr, betas=(momentum, 0.999), **published)
    assert isinstance(made, torch.optim.Optimizer)
    return made


def _library(name: str) -> Any:
    try:
        return importlib.import_module("pytorch_optimizer")
    except ImportError as missing:
        raise InstallError(
            f"optimizer={name} comes from pytorch-optimizer, which cannot be imported ({missing}): "
            "pip install 'hvdfilter[large-batch]', or pip install 'pytorch-optimizer>=4.1'"
        ) from None
