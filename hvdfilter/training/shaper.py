"""Shaper: shapes the batches of one run, counts them, and knows which samples it may touch.

The gradient is taken in eval mode, one sample apart from the others, so no statistic and no random
number is spent on it and a sample is moved alike in any batch. What is not moved stays bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hvdfilter.agreement import KeepMask
from hvdfilter.filter import Filter
from hvdfilter.models.modes import eval_mode
from hvdfilter.training.informed import pick
from hvdfilter.training.shaping import Shaping, shaped


class Batch(NamedTuple):
    """A batch to train on. x: as the run's network takes it. rows: int [k] of those that were
    moved, own: their logits as they are, [k, C]; both None where none was."""

    x: Tensor
    rows: Tensor | None = None
    own: Tensor | None = None

    def clean(self, logits: Tensor) -> Tensor | None:
        """The logits to score by: of the inputs as they are; None where they are `logits`."""
        if self.rows is None or self.own is None:
            return None
        return logits.detach().index_copy(0, self.rows, self.own.to(logits.dtype))


class Shaper:
    """Shapes inputs as `how` says, by the gradient of `network`."""

    def __init__(self, how: Shaping, network: nn.Module, filt: Filter) -> None:
        self.how, self._network, self._filter = how, network, filt
        self._picked: KeepMask | None = None
        self._moved = 0

    def begin_epoch(self) -> None:
        """Collective. Pick the samples of the epoch that the filter has begun."""
        self._moved = 0
        if self.how.picks is not None:
            with self._filter.costs.measure("shaping", self._filter.world.collective):
                self._picked = pick(self._filter, *self.how.picks)

    def __call__(self, ids: Tensor, x: Tensor, y: Tensor) -> Batch:
        """x: uint8 [B, C, H, W]; y: int64 [B]; ids: int64 [B]."""
        radius = self.how.radius(self._filter.progress)
        with self._filter.costs.measure("shaping"):
            rows = torch.arange(len(ids), device=x.device)
            if self._picked is not None:
                mine = torch.from_numpy(self._picked.contains(ids.cpu().numpy()))
                rows = rows[mine.to(x.device)]
            if radius == 0 or not len(rows):
                return Batch(x)
            with eval_mode(self._network):
                pixels = x[rows].float() / 255
                moved, own = shaped(self._logits, pixels, y[rows], self.how, radius)
            self._moved += len(rows)
            return Batch(x.float().index_copy(0, rows, moved * 255), rows, own)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self._network(x * 255)
        return logits.float()

    def record(self) -> dict[str, Any]:
        """Collective. What the epoch's line in `metrics.jsonl` says: inputs moved on all ranks."""
        moved = np.array([self._moved], np.int64)
        return {"shaped": int(self._filter.world.collective.allreduce(moved)[0])}

    def state_dict(self) -> dict[str, Any]:
        """Collective. What an epoch needs to go on in its middle, on any number of ranks."""
        picked = self._picked
        return self.record() | {
            "picked": None if picked is None else torch.from_numpy(picked.packed.copy())
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._moved = state["shaped"] if self._filter.world.rank == 0 else 0
        if state["picked"] is not None:
            self._picked = KeepMask(state["picked"].numpy(), self._filter.num_samples)
