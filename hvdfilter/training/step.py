"""One training step: forward, backward, and the optimiser's step, the same on every rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hvdfilter.filter import Filter
from hvdfilter.training.backward import Backward
from hvdfilter.training.extrapolation import Extrapolation
from hvdfilter.training.shaper import Batch, Shaper
from hvdfilter.training.shaping import Shaping


class Step:
    """Called with a batch (ids, x, y) on the run's device; returns its mean loss, detached.

    extrapolation: how far ahead gradients are taken, in steps; 0 takes them where the weights are.
    shaping: how inputs are moved before, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        prepare: nn.Module,
        filt: Filter,
        optimizer: torch.optim.Optimizer,
        backward: Backward,
        extrapolation: float = 0.0,
        shaping: Shaping | None = None,
    ) -> None:
        self.model, self.prepare = model, prepare
        self.filter, self.optimizer, self.backward = filt, optimizer, backward
        self.extrapolation = Extrapolation(optimizer, extrapolation, lambda: filt.lr_scale)
        self.shaper = None if shaping is None else Shaper(shaping, model, prepare, filt)

    def begin_epoch(self) -> None:
        """Collective. The filter has begun an epoch."""
        if self.shaper is not None:
            self.shaper.begin_epoch()

    def __call__(self, ids: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """x: uint8 [B, C, H, W], augmented; y: int64 [B]; ids: int64 [B]."""
        self.optimizer.zero_grad()
        with self.extrapolation.ahead():
            batch = Batch(x) if self.shaper is None else self.shaper(ids, x, y)
            with self.backward:
                logits = self.model(self.prepare(batch.x))
                loss = self.filter.loss(logits, y, ids, clean=batch.clean(logits))
                loss.backward()
            if self.backward.needed:
                self.filter.observe(ids, **self.backward.scores(self.filter.weights(ids)))
        self.optimizer.step()
        self.extrapolation.remember()
        return loss.detach()

    def record(self) -> dict[str, Any]:
        """Collective. What the epoch's record says of its steps."""
        return {} if self.shaper is None else self.shaper.record()

    def state_dict(self) -> dict[str, Any]:
        """Collective. What a run needs to go on after its last step."""
        return {
            "past": self.extrapolation.state_dict(),
            "shaping": None if self.shaper is None else self.shaper.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.extrapolation.load_state_dict(state["past"])
        if self.shaper is not None:
            self.shaper.load_state_dict(state["shaping"])
