"""Evaluation: loss and accuracy of a model over a set, each rank taking its share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from hvdfilter import scoring
from hvdfilter.errors import InputError
from hvdfilter.filter.observing import name_ids
from hvdfilter.models.modes import eval_mode
from hvdfilter.world import World


def evaluate(network: torch.nn.Module, loader: Iterable[Any], world: World) -> tuple[float, float]:
    """Collective. (mean loss, accuracy) over the samples that the loaders of all ranks yield.

    network: uint8 [B, C, H, W] -> logits. Runs in eval mode without gradients and leaves it in the
    mode it was in. Correct answers are counted in integers, so the accuracy does not depend on the
    number of ranks.
    """
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    counts = torch.zeros(2, dtype=torch.int64, device=world.device)
    with world.collective.errors_shared(), eval_mode(network), torch.no_grad():
        for ids, x, y in loader:
            x, y = x.to(world.device), y.to(world.device)
            try:
                scores = scoring.score(network(x), y)
                scoring.check(scores)
            except InputError as refused:
                raise InputError(f"evaluation: {name_ids(refused, ids)}") from None
            loss += scores.loss.double().sum()
            counts[0] += scores.correct.sum()
            counts[1] += len(y)
    correct, total = world.collective.allreduce(counts.cpu().numpy(), "sum")
    whole = world.collective.allreduce(np.array([loss.item()]), "sum")[0]
    return float(whole / total), float(correct / total)
