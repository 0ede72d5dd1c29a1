"""One run of `benchmarks.accuracy`: a policy, or a control of exactly as many steps.

The loop is the package's own `Trainer`; here it is only given data that is opened once, a clock
that splits CPU time too, and, for a control, how many samples each epoch trains.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from hvdfilter import policies
from hvdfilter.costs import Costs, Counts
from hvdfilter.data import Images, open_dataset
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.training.schedule import schedule
from hvdfilter.world import World

Sets = tuple[Images, Images]
# What a record's seconds are booked to; whatever is left of the total is "other".
PARTS = {
    "training": ("training",),
    "rescoring": ("rescoring",),
    "selection": ("agreement", "exchange", "waiting"),
    "evaluation": ("evaluation",),
}


@dataclass(frozen=True)
class Recipe:
    """What all runs of a comparison share. train, test: samples of either set; None is all."""

    data: str
    model: str
    epochs: int
    batch_size: int
    lr: float
    train: int | None = None
    test: int | None = None

    def open(self) -> Sets:
        """The training and the test set, opened once for all runs of a process."""
        train_set = open_dataset(self.data, train=True, limit=self.train)
        return train_set, open_dataset(self.data, train=False, limit=self.test, like=train_set)

    def config(self, seed: int, epochs: int | None = None) -> TrainConfig:
        """The package's description of one run, without its policy."""
        return TrainConfig(
            data=self.data,
            model=self.model,
            epochs=epochs or self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=seed,
        )


@dataclass(frozen=True)
class Counted(policies.Policy):
    """A fresh random choice each epoch, of as many samples as `kept` says: a control."""

    name: ClassVar[str] = "random"
    kept: tuple[int, ...] = ()
    scale_lr: bool = False

    def plan(self, view: policies.View) -> policies.Plan:
        """The keys of policy `random`, cut where the subject's mask was."""
        return policies.Plan(view.random_keys(view.epoch), self.kept[view.epoch])


def counts(kept: Sequence[int], steps: Sequence[int], samples: int, batch: int) -> tuple[int, ...]:
    """How many samples random epochs train to take the steps of a run that kept `kept`.

    They are `kept` itself but where samples were repeated: there it is the number of draws.
    """
    return tuple(
        k if -(-k // batch) == s else min(samples, s * batch)
        for k, s in zip(kept, steps, strict=True)
    )


def shortened(steps: int, samples: int, batch: int) -> tuple[int, ...]:
    """Epochs of all samples that take `steps` in all; the last one is short if it must be."""
    each = -(-samples // batch)
    whole, rest = divmod(steps, each)
    return (samples,) * whole + ((rest * batch,) if rest else ())


class SplitCosts(Costs):
    """Costs that book the CPU time of every part as well, under "cpu PART"."""

    @contextmanager
    def measure(self, part: str, counter: Counts | None = None) -> Iterator[None]:
        """Book the block's wall and CPU time."""
        worked = time.process_time()
        try:
            with super().measure(part, counter):
                yield
        finally:
            self.add(f"cpu {part}", time.process_time() - worked)


class _Run(Trainer):
    """A `Trainer` over sets that are open; total: steps over which the schedule is stretched."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        sets: Sets,
        policy: policies.Policy,
        total: int | None,
        warmup_share: float,
    ) -> None:
        self._sets, self._total, self._done = sets, total, 0
        self._warmup_share = warmup_share
        super().__init__(config, world, policy)
        self.filter.costs = SplitCosts()

    def _open_data(self) -> Sets:
        return self._sets

    def _set_rate(self, progress: float) -> None:
        if self._total is None:
            super()._set_rate(progress)
            return
        # An epoch cut short is not a whole one: progress is counted in steps.
        factor = schedule(self._done / self._total, 1, self._warmup_share)
        self._done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * factor


def train(
    recipe: Recipe, sets: Sets, world: World, policy: policies.Policy, seed: int
) -> dict[str, Any]:
    """Train with `policy` for the epochs of `recipe`."""
    return _train(recipe, sets, world, policy, seed, recipe.epochs, None)


def train_random(
    recipe: Recipe, sets: Sets, world: World, kept: tuple[int, ...], scale_lr: bool, seed: int
) -> dict[str, Any]:
    """Train a fresh random choice of `kept` samples an epoch."""
    policy = Counted(kept, scale_lr)
    return _train(recipe, sets, world, policy, seed, len(kept), None)


def train_shortened(
    recipe: Recipe, sets: Sets, world: World, steps: int, seed: int
) -> dict[str, Any]:
    """Train all samples for `steps` steps, warm-up and decay of the rate shortened likewise."""
    kept = shortened(steps, len(sets[0]), recipe.batch_size)
    return _train(recipe, sets, world, Counted(kept), seed, len(kept), steps)


def _train(
    recipe: Recipe,
    sets: Sets,
    world: World,
    policy: policies.Policy,
    seed: int,
    epochs: int,
    total: int | None,
) -> dict[str, Any]:
    """Run it and sum up the records of its epochs."""
    whole = recipe.config(seed)
    share = whole.warmup / whole.epochs
    done = run(recipe.config(seed, epochs), sets, world, policy, total, share)
    return (
        summary(done.records, recipe.batch_size)
        | {"wall": split(done.records, done.wall, "")}
        | {"cpu": split(done.records, done.cpu, "cpu ")}
    )


@dataclass(frozen=True)
class Done:
    """A finished run. network: images -> logits; wall, cpu: seconds in all."""

    records: list[dict[str, Any]]
    network: torch.nn.Module
    wall: float
    cpu: float


def run(
    config: TrainConfig,
    sets: Sets,
    world: World,
    policy: policies.Policy,
    total: int | None = None,
    warmup_share: float = 0.0,
) -> Done:
    """Train as `config` says, over open sets; nothing of it is left on disk.

    total: steps over which the schedule is stretched, of which `warmup_share` are warm-up.
    """
    started, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, runs=Path(folder), name="run")
        trainer = _Run(config, world, sets, policy, total, warmup_share)
        watch = Watch()  # not entered: a kill ends the process, and the run is run again
        records = [trainer.run_epoch(watch, lambda *_: None) for _ in range(config.epochs)]
    wall, cpu = time.perf_counter() - started, time.process_time() - worked
    return Done(records, trainer.network, wall, cpu)


def summary(records: Sequence[dict[str, Any]], batch: int) -> dict[str, Any]:
    """What a run did: accuracy at its end and after every epoch, its steps, what it kept."""
    samples = records[0]["samples"]
    kept = [record["kept"] for record in records]
    steps = [record["steps"] for record in records]
    return {
        "accuracy": records[-1]["test_accuracy"],
        "curve": [record["test_accuracy"] for record in records],
        "steps": sum(steps),
        "hidden": 1 - sum(kept) / (samples * len(kept)),
        "drawn": list(counts(kept, steps, samples, batch)),
    }


def split(records: Sequence[dict[str, Any]], total: float, prefix: str) -> dict[str, float]:
    """Seconds of a run by `PARTS`, what is left over as "other", and the total."""
    parts = {
        part: sum(record["seconds"].get(prefix + name, 0.0) for record in records for name in names)
        for part, names in PARTS.items()
    }
    return parts | {"other": total - sum(parts.values()), "total": total}
