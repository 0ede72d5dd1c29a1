"""`--dry-run`: everything of a run but its training, and nothing is written.

The run is made as `train` makes it, on all ranks: what would be refused there is refused here. What
is not looked at: whether a step fits into memory, and whether a decoded cache has room. Reading
tars for the first time leaves their index, as it does anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hvdfilter import policies
from hvdfilter.training import budget, compare, ring
from hvdfilter.training.checkpoints import Checkpoints
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.run_folder import RunFolder
from hvdfilter.training.start import check


@dataclass(frozen=True)
class Planned:
    """What a run would do. batch: samples of a step, of all ranks; steps: of an epoch in full.

    resume: whether it is asked to go on from a checkpoint; epoch, step: where it would start,
    from 0; shape: of an image; weights: how many the model has.
    """

    folder: Path
    exists: bool
    resume: bool
    data: str
    samples: int
    test_samples: int
    shape: tuple[int, ...]
    classes: int
    model: str
    weights: int
    policy: str
    ranks: int
    device: str
    batch: int
    epochs: int
    steps: int
    epoch: int
    step: int

    @property
    def steps_left(self) -> int:
        """Optimiser steps until the end, if nothing is hidden and the batch does not grow."""
        return (self.epochs - self.epoch) * self.steps - self.step


def dry_comparison(config: TrainConfig) -> list[Planned]:
    """Collective. The plans of the runs that `compare` would train by turns."""
    world = ring.start(config.fusion_mb, config.cycle_time_ms)
    with world.collective.errors_shared():
        config = compare.settled(config)
    return [dry_run(one) for one in compare.runs_of(config)]


def dry_run(config: TrainConfig) -> Planned:
    """Collective. The plan of a run; raises what `train` would raise before its first step."""
    world = ring.start(config.fusion_mb, config.cycle_time_ms, config.elastic)
    with world.collective.errors_shared():
        config.check()
        policy = policies.make(config.policy, **config.policy_options)
        if config.budget_seconds is not None:
            budget.check(policy)
        check(config, policy)
    folder = RunFolder.look(config.runs, config.name, config.plain(), world, config.resume)
    place = np.zeros(2, np.int64)
    with world.collective.errors_shared():
        if world.rank == 0 and folder.existed:
            place += np.array(Checkpoints(folder.path, world).place() or (0, 0), np.int64)
    epoch, step = world.collective.broadcast(place).tolist()
    # A cache would be written, and so would metrics that a resumed run computes again.
    trainer = Trainer(replace(config, decoded_cache=None, resume=False), world, policy, folder)
    batch = trainer.batch_size * world.size
    shard = -(-len(trainer.train_set) // world.size)
    return Planned(
        folder=folder.path,
        exists=folder.existed,
        resume=config.resume,
        data=config.data,
        samples=len(trainer.train_set),
        test_samples=len(trainer.test_set),
        shape=tuple(trainer.train_set.shape),
        classes=trainer.train_set.num_classes,
        model=config.model,
        weights=sum(p.numel() for p in trainer.model.parameters()),
        policy=repr(policy),
        ranks=world.size,
        device=str(world.device),
        batch=batch,
        epochs=config.epochs,
        steps=-(-shard // trainer.batch_size),
        epoch=epoch,
        step=step,
    )
