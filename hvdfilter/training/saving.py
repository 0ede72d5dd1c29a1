"""What a checkpoint of a run holds, and how a run that is resumed takes it up.

Model, optimiser, filter, clusters, budget and costs; within an epoch also what each rank has for
itself. Files and folders are `checkpoints.py`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hvdfilter.agreement.spread import gather_parts
from hvdfilter.errors import InputError
from hvdfilter.training import mid_epoch
from hvdfilter.training.budget import Budget
from hvdfilter.training.checkpoints import Checkpoints
from hvdfilter.training.step import Step
from hvdfilter.world import World


class Place(NamedTuple):
    """How far a run has come. loss_sum: of this rank's samples in the epoch so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0


class Saving:
    """Collective, but for `due` and `error`."""

    def __init__(
        self,
        run: Path,
        world: World,
        step: Step,
        budget: Budget | None,
    ) -> None:
        self._world, self._step, self._budget = world, step, budget
        self._model, self._filter, self._backward = step.model, step.filter, step.backward
        self._checkpoints = Checkpoints(run, world)
        self._at = time.monotonic()
        self._own: mid_epoch.Own | None = None  # of an epoch that goes on in its middle

    @property
    def error(self) -> InputError | None:
        """Why this rank could not write the last checkpoint."""
        return self._checkpoints.error

    def due(self, seconds: float) -> bool:
        """Whether it is rank 0's turn to say that so much time has passed; 0 is never."""
        return self._world.rank == 0 and 0 < seconds < time.monotonic() - self._at

    def save(self, place: Place, consumed: int) -> None:
        """Have the checkpoint written. consumed: samples this rank trained since it resumed."""
        book = self._filter.book
        parts = self._checkpoints.parts(book.num_samples * book.sample_bytes)
        filt = self._filter.state_dict(consumed, parts)
        rows = filt.pop("rows")
        if place.step > 0:
            own = self._collect(place.loss_sum)
            for name, row in own.items():
                rows[name] = torch.from_numpy(gather_parts(row, parts, self._world.collective))
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._step.optimizer.state_dict(),
            "train_step": self._step.state_dict(),
            "filter": filt,
            "backward": self._backward.state(),
            "epoch": place.epoch,
            "step": place.step,
            "seconds": dict(self._filter.costs.seconds),
            "bytes_sent": dict(self._filter.costs.bytes),
            "budget": None if self._budget is None else self._budget.state(),
        }
        self._checkpoints.save(state, rows, parts, place.epoch, place.step)
        self._at = time.monotonic()

    def settle(self) -> None:
        """Wait until the last checkpoint is on disk; raises why it is not."""
        self._checkpoints.settle()

    def resume(self) -> Place:
        """Take up the newest checkpoint; a run that has none begins."""
        saved = self._checkpoints.newest()
        if saved is None:
            return Place()
        state, rows = saved
        self._model.load_state_dict(state["model"])
        self._step.optimizer.load_state_dict(state["optimizer"])
        self._step.load_state_dict(state["train_step"])
        self._filter.load_state_dict({**state["filter"], "rows": rows})
        self._backward.restore(state["backward"])
        if self._budget is not None:
            self._budget.restore(state["budget"])
        if not state["step"]:
            return Place(state["epoch"])
        return Place(state["epoch"], state["step"], self._within_epoch(state, rows))

    def restore_buffers(self) -> None:
        """BatchNorm statistics of each rank, once rank 0's have been sent to all."""
        if self._own is not None:
            self._own.restore_buffers(self._model)

    def restore_random(self) -> None:
        """The random numbers to go on with, before the first step after resuming."""
        if self._own is not None:
            self._own.restore_random(self._world.device)
            self._own = None

    def _within_epoch(self, state: Mapping[str, Any], rows: Mapping[str, Tensor]) -> float:
        # The part of the epoch that is done has had its costs.
        self._filter.costs.restore(state["seconds"], state["bytes_sent"])
        self._own = mid_epoch.Own(rows, self._collect(0.0), self._world)
        self._own.restore_sums(self._backward)
        return self._own.loss_sum

    def _collect(self, loss_sum: float) -> dict[str, mid_epoch.Row]:
        sums = self._backward.own_sums()
        return mid_epoch.collect(self._model, loss_sum, sums, self._world.device)
