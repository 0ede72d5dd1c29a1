"""One training step: forward, backward, and the optimiser's step, the same on every rank.

A batch may be taken in parts, one after another, whose gradients add up to the batch's: memory is
that of a part, and gradients travel once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvdfilter.filter import Filter
from hvdfilter.training.backward import Backward
from hvdfilter.training.extrapolation import Extrapolation
from hvdfilter.training.network import Network
from hvdfilter.training.shaper import Batch, Shaper
from hvdfilter.training.shaping import Shaping


class Step:
    """Called with a batch (ids, x, y) on the run's device; returns its mean loss, detached.

    extrapolation: how far ahead gradients are taken, in steps; 0 takes them where the weights are.
    shaping: how inputs are moved before, or None. part: samples that a forward takes at once; by
    default the batch. It may be changed between steps.
    """

    def __init__(
        self,
        network: Network,
        filt: Filter,
        optimizer: torch.optim.Optimizer,
        backward: Backward,
        extrapolation: float = 0.0,
        shaping: Shaping | None = None,
        part: int | None = None,
    ) -> None:
        self.network, self.model, self.part = network, network.model, part
        self.filter, self.optimizer, self.backward = filt, optimizer, backward
        self.extrapolation = Extrapolation(optimizer, extrapolation, lambda: filt.lr_scale)
        self.shaper = None if shaping is None else Shaper(shaping, network, filt)

    def begin_epoch(self) -> None:
        """Collective. The filter has begun an epoch."""
        if self.shaper is not None:
            self.shaper.begin_epoch()

    def __call__(self, ids: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """x: uint8 [B, C, H, W], augmented; y: int64 [B]; ids: int64 [B]."""
        self.optimizer.zero_grad()
        part = self.part or len(ids)
        with self.extrapolation.ahead():
            losses = [
                self._pass(*parts, len(parts[0]) / len(ids))
                for parts in zip(ids.split(part), x.split(part), y.split(part), strict=True)
            ]
        self.optimizer.step()
        self.extrapolation.remember()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _pass(self, ids: Tensor, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Forward and backward of a part, this share of the batch; its part of the loss."""
        batch = Batch(x) if self.shaper is None else self.shaper(ids, x, y)
        with self.backward:
            logits = self.network(batch.x)
            loss = self.filter.loss(logits, y, ids, clean=batch.clean(logits))
            if share < 1:
                loss = loss * share
            loss.backward()
        if self.backward.needed:
            weight = self.filter.weights(ids)
            if share < 1:
                weight = loss.new_full((len(ids),), share) if weight is None else weight * share
            self.filter.observe(ids, **self.backward.scores(weight))
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
