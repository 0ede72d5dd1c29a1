"""Runs in this process that stop and go on, and steps over data made to measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hvdfilter as hf
from hvdfilter.data import Normalize
from hvdfilter.training.backward import Backward
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.network import Network
from hvdfilter.training.preemption import Preempted
from hvdfilter.training.step import Step
from hvdfilter.world import current


class Told:
    """A watch that sees a signal after so many steps; None never."""

    def __init__(self, after: int | None = None) -> None:
        self.left = after

    @property
    def stopping(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left <= 0


def finish(trainer: Trainer, after: int | None = None) -> list[dict[str, Any]]:
    """Train what is left of the run, or stop after so many steps; the records."""
    records: list[dict[str, Any]] = []
    if after is None:
        trainer.run(Told(), lambda *_: None, records.append)
    else:
        with pytest.raises(Preempted):
            trainer.run(Told(after), lambda *_: None, records.append)
    return records


def stopped_and_resumed(config: TrainConfig, folder: Path, after: int) -> tuple[Trainer, Trainer]:
    """The same run in one go, and stopped after so many steps and taken up by a new process."""
    config = replace(config, runs=folder)
    whole = Trainer(replace(config, name="whole"), current())
    finish(whole)
    finish(Trainer(replace(config, name="cut"), current()), after)
    resumed = Trainer(replace(config, name="cut", resume=True), current())
    finish(resumed)
    return whole, resumed


def same_weights(one: Trainer, other: Trainer) -> bool:
    """Bit for bit."""
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Stepper:
    """Steps of a small network on random images, with all that a run's step is made of."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, policy: Any, n: int,
                 **options: Any) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(4)
        self.x = torch.randint(0, 256, (n, 1, 3, 3), generator=generator).to(torch.uint8)
        self.y = torch.randint(0, 3, (n,), generator=generator)
        self.prepare = Normalize((0.5,), (0.25,))
        self.filter = hf.Filter(n, policy, epochs=4, labels=self.y.numpy())
        self.filter.attach(optimizer)
        backward = Backward(self.filter.policy, model, 0, current())
        network = Network(self.prepare, model)
        self.step = Step(network, self.filter, optimizer, backward, **options)

    def batches(self, epoch: int, size: int) -> list[Tensor]:
        """The ids of the batches of an epoch, which is begun."""
        self.filter.begin_epoch(epoch)
        self.step.begin_epoch()
        return list(torch.tensor(list(self.filter.sampler())).split(size))

    def __call__(self, ids: Tensor) -> Tensor:
        return self.step(ids, self.x[ids], self.y[ids])


def network() -> nn.Module:
    """[B, 1, 3, 3] -> [B, 3]; the same weights each time."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3))
