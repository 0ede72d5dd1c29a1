"""One training step: forward, backward, and the optimiser's step, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hvdfilter.filter import Filter
from hvdfilter.training.backward import Backward


class Step:
    """Called with a batch (ids, x, y) on the run's device; returns its mean loss, detached."""

    def __init__(
        self,
        model: nn.Module,
        prepare: nn.Module,
        filt: Filter,
        optimizer: torch.optim.Optimizer,
        backward: Backward,
    ) -> None:
        self.model, self.prepare = model, prepare
        self.filter, self.optimizer, self.backward = filt, optimizer, backward

    def __call__(self, ids: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """x: uint8 [B, C, H, W], augmented; y: int64 [B]; ids: int64 [B]."""
        self.optimizer.zero_grad()
        with self.backward:
            loss = self.filter.loss(self.model(self.prepare(x)), y, ids)
            loss.backward()
        if self.backward.needed:
            self.filter.observe(ids, **self.backward.scores(self.filter.weights(ids)))
        self.optimizer.step()
        return loss.detach()
