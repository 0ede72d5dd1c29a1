"""One training step: forward, backward, and the optimiser's step, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hvdfilter.filter import Filter


class Step:
    """Called with a batch (ids, x, y) on the run's device; returns its mean loss, detached."""

    def __init__(
        self, model: nn.Module, prepare: nn.Module, filt: Filter, optimizer: torch.optim.Optimizer
    ) -> None:
        self.model, self.prepare = model, prepare
        self.filter, self.optimizer = filt, optimizer

    def __call__(self, ids: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """x: uint8 [B, C, H, W], augmented; y: int64 [B]; ids: int64 [B]."""
        self.optimizer.zero_grad()
        loss = self.filter.loss(self.model(self.prepare(x)), y, ids)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
