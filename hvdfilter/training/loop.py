"""`train(config)`: the main job, one epoch after another, the same on every rank.

It ties data, model, Filter and Horovod together and leaves a run folder. What the ranks compute
and decide lives in the modules it calls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvdfilter import policies
from hvdfilter.data import Images, augment, make_loader, to_device
from hvdfilter.data.loader import Batch
from hvdfilter.features import feature_scores, head
from hvdfilter.features.scores import due, waiting
from hvdfilter.filter import Filter
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.training import growth, network, optimizer, ring, shaping
from hvdfilter.training.backward import Backward
from hvdfilter.training.budget import Budget
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.evaluate import evaluate
from hvdfilter.training.forward import forward_only
from hvdfilter.training.informed import Noting
from hvdfilter.training.metrics import counted
from hvdfilter.training.opened import open_data
from hvdfilter.training.preemption import Preempted, Watch
from hvdfilter.training.reading import Reading
from hvdfilter.training.run_folder import RunFolder
from hvdfilter.training.saving import Place, Saving
from hvdfilter.training.schedule import schedule
from hvdfilter.training.step import Step
from hvdfilter.training.variance import Variance
from hvdfilter.training.watchdog import Watchdog
from hvdfilter.world import World

# Called on every rank after every step: (epoch, step, steps of the epoch).
Progress = Callable[[int, int, int], None]
# Called on every rank with the record of every finished epoch.
Report = Callable[[dict[str, Any]], None]
# Training batches that a pass without a backward takes at once: it holds less than a step does.
FORWARD_BATCHES = 4


@dataclass(frozen=True)
class Result:
    """What a finished run has to show: its folder and its last record."""

    folder: Path
    last: dict[str, Any]


class Trainer:
    """The state of one run: data, model, optimiser, filter, and how far it has come.

    policy: by default made as `config` says. folder: of the run, where it is open already;
    started: when the run began, by `time.perf_counter`, where that was before. Several
    may live in one process, if they take turns: between two epochs nothing of a run is under way.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        policy: policies.Policy | None = None,
        folder: RunFolder | None = None,
        started: float | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        started = started or time.perf_counter()
        self.config, self.world = config, world
        self.watchdog = watchdog or Watchdog(0)
        self.train_set, self.test_set = self._open_data()
        policy = policy or policies.make(config.policy, **config.policy_options)
        shape = None
        if config.shaping is not None:
            with world.collective.errors_shared():
                shape = shaping.make(config.shaping, **config.shaping_options)
        self.budget: Budget | None = None
        if config.budget_seconds is not None:
            self.budget = Budget(config, policy, len(self.train_set), world, started)
            policy = self.budget.policy
        if shape is not None and shape.picks is not None:
            policy = Noting(policy, shape.picks[0])
        self.filter = Filter(
            len(self.train_set),
            policy,
            epochs=config.epochs,
            world=world,
            labels=self.train_set.labels,
            seed=config.seed,
            exchange=config.exchange,
            history=True,
        )
        self.network = network.build(config, self.train_set, world)
        self.model = self.network.model
        if waiting(policy) is not None:  # said now, and not when the opening has been trained
            with world.collective.errors_shared():
                head.check(self._forward(), self.train_set.batch([0])[0].to(world.device))
        self.optimizer, self.peak_lr = optimizer.build(config, self.model, world)
        self.growth = growth.plan(config, policy)
        self.filter.attach(self.optimizer)
        self.backward = Backward(policy, self.model, config.seed, world)
        parts = self.network, self.filter, self.optimizer, self.backward
        self.train_step = Step(*parts, config.extrapolation, shape)
        self.variance = Variance(config, world, self.train_set, self.filter, self.network)
        self.sampler = self.filter.sampler()
        self.epoch, self.batch_size = 0, 0  # samples of a step on this rank, in this epoch
        self._size_batch()
        self._forward_size = FORWARD_BATCHES * config.batch_size
        mine = range(world.rank, len(self.test_set), world.size)  # each sample on one rank
        self.test_loader = self._loader(self.test_set, mine, self._forward_size)
        self.folder = folder or RunFolder.open(  # last: a mistake above leaves no folder
            config.runs, config.name, config.plain(), world, config.resume
        )
        self.saving = Saving(self.folder.path, world, self.train_step, self.budget)
        self.watchdog.attach(self.folder.path, world)
        self.step, self.loss_sum, self._resumed_at = 0, 0.0, 0
        self._running: torch.Tensor | None = None  # the epoch's sum of losses, on the device
        if config.resume:
            self._resume()
        ring.broadcast(self.model, self.optimizer, world)
        self.saving.restore_buffers()

    def run(self, watch: Watch, progress: Progress, report: Report) -> Result:
        """Train the epochs that are left, each with a checkpoint at its end."""
        record: dict[str, Any] = {}
        while self.epoch < self.config.epochs:
            record = self.run_epoch(watch, progress)
            report(record)
            with self.filter.costs.whole(), self.filter.costs.measure("checkpoint"):
                self.save()
        self.saving.settle()
        return Result(self.folder.path, record)

    def run_epoch(self, watch: Watch, progress: Progress) -> dict[str, Any]:
        """Collective. Train the next epoch, or what a resumed run has left of it; its record.

        Raises `Preempted`, after a checkpoint, when `watch` has seen a signal on any rank.
        """
        costs, record = self.filter.costs, None
        self._size_batch()
        # A run's random choices (dropout) depend on nothing that ran before it in this process.
        torch.manual_seed(self.config.seed + self.epoch)
        reading = Reading(self.train_set)
        with costs.whole():
            if self.step == 0:
                self.filter.begin_epoch(self.epoch)
                self.train_step.begin_epoch()
            if self._train_epoch(watch, progress):
                reading.mark("training")
                ring.average_buffers(self.model, self.world)
                if self.filter.policy.rescores and self.filter.hidden:
                    self._rescore()
                    reading.mark("rescoring")
                self.backward.end_epoch()
                self.filter.end_epoch()
                if due(self.filter):
                    self._score_features()
                record = self._record() | reading.record(self.world)
                if self.config.variance:
                    with costs.measure("variance"):
                        measured = self.variance.measure(self.epoch, self.batch_size, self._part)
                    if measured is not None:
                        record["variance"] = measured
        if record is None:
            self.save()
            self.saving.settle()
            raise Preempted(self.folder.path)
        # Parts overlap: "scoring" is spent inside the training and re-scoring passes, and
        # "checkpoint" is the one that the epoch before left.
        record["seconds"], record["bytes_sent"] = costs.take()
        worked = np.array([record["seconds"].pop("cpu")])
        record["cpu_seconds"] = float(self.world.collective.allreduce(worked, "sum")[0])
        if self.budget is not None:
            record["budget"] = self.budget.end_epoch(record)
        self.folder.append(record)
        self.epoch, self.step, self.loss_sum, self._resumed_at = self.epoch + 1, 0, 0.0, 0
        return record

    def _train_epoch(self, watch: Watch, progress: Progress) -> bool:
        """Whether the epoch was trained to its end: False when a rank was told to stop."""
        config, device = self.config, self.world.device
        self._resumed_at = self.step  # not 0 only after a checkpoint taken in mid-epoch
        steps = self.step + _steps(len(self.sampler), self.batch_size)
        loss_sum = torch.tensor(self.loss_sum, dtype=torch.float64, device=device)
        self._running = loss_sum
        self.model.train()
        with self.filter.costs.measure("training"):
            for ids, x, y in self._batches(self.loader, f"epoch {self.epoch}, training"):
                self.saving.restore_random()  # once the loader has drawn its own
                x = augment(x, ids, self.epoch, config.seed, self.train_set.augmentation)
                self._set_rate(self.epoch + self.step / steps)
                loss_sum += self.train_step(ids, x, y) * len(ids)
                self.step += 1
                progress(self.epoch, self.step, steps)
                self._signal(watch)
                if self.filter.stopping and self.step < steps:
                    break
                if self.filter.saving and self.step < steps:
                    self.loss_sum = loss_sum.item()
                    with self.filter.costs.measure("checkpoint"):
                        self.save()
            self.loss_sum = loss_sum.item()
        return self.step == steps

    def _signal(self, watch: Watch) -> None:
        """Tell the other ranks what they must hear of: a warning, a full disk, a time to save."""
        if watch.stopping:
            self.filter.request_stop()
        if self.saving.error is not None:
            self.filter.fail(self.saving.error)
        if self.saving.due(60 * self.config.checkpoint_minutes):
            self.filter.request_save()

    def _rescore(self) -> None:
        loader = self._loader(self.train_set, self.filter.hidden_sampler(), self._forward_size)
        self.filter.rescore(self._forward(), self._batches(loader, "re-scoring"))

    def _score_features(self) -> None:
        book = self.filter.book
        mine = range(book.start, book.start + book.length)
        loader = self._loader(self.train_set, mine, self._forward_size)
        feature_scores(self.filter, self._forward(), self._batches(loader, "scoring features"))

    def _forward(self) -> torch.nn.Module:
        return forward_only(self.network, self.config.model, self.world.device)

    def _record(self) -> dict[str, Any]:
        """The line of `metrics.jsonl` of the epoch that has just ended, but for its costs."""
        world = self.world
        with self.filter.costs.measure("evaluation"):
            batches = self._batches(self.test_loader, "evaluation")
            test_loss, accuracy = evaluate(self.network, batches, world)
        sums = world.collective.allreduce(np.array([self.loss_sum, len(self.sampler)]), "sum")
        shard = -(-self.filter.num_samples // world.size)
        steps_full = _steps(shard, self.batch_size)  # what hiding saves, not the larger batch
        return {
            "epoch": self.epoch,
            "train_loss": float(sums[0] / sums[1]),
            "test_loss": test_loss,
            "test_accuracy": accuracy,
            "batch_size": self.batch_size,
            "lr": self.optimizer.param_groups[0]["lr"],
            **counted(self.filter, self.model, self.step, steps_full, self.config.fp16_allreduce),
            **self.train_step.record(),
        }

    def _open_data(self) -> tuple[Images, Images]:
        return open_data(self.config, self.world, self.watchdog)

    def _size_batch(self) -> None:
        self._part = self.growth.batch(self.config.batch_size, self.epoch)
        size = self._part * self.config.accumulate
        if size != self.batch_size:
            self.batch_size, self.train_step.part = size, self._part
            self.loader = self._loader(self.train_set, self.sampler, self.batch_size)

    def _set_rate(self, progress: float) -> None:
        factor = schedule(progress, self.config.epochs, self.config.warmup)
        factor *= self.growth.multiple(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * factor

    def _batches(self, loader: Iterable[Batch], where: str) -> Iterator[Batch]:
        """The batches on this rank's device; waiting for each is booked, and a sign of life."""
        batches = self.filter.costs.over(to_device(loader, self.world.device), "data")
        return self.watchdog.over(batches, where)

    def _loader(self, images: Images, sampler: ShardSampler | range, size: int) -> Any:
        return make_loader(images, sampler, size, self.config.workers)

    def running_loss(self) -> float:
        """Mean of this rank's losses in the epoch so far; waits for the device. NaN before it."""
        last = self._resumed_at * self.batch_size + len(self.sampler)
        seen = min(self.step * self.batch_size, last)
        return math.nan if self._running is None or not seen else self._running.item() / seen

    def save(self) -> None:
        """Collective. Have the checkpoint of where the run is written, as it trains on."""
        # What was trained on, not what a loader has fetched ahead.
        consumed = (self.step - self._resumed_at) * self.batch_size
        self.saving.save(Place(self.epoch, self.step, self.loss_sum), consumed)

    def _resume(self) -> None:
        place = self.saving.resume()
        self.epoch, self.step, self.loss_sum = place
        self.folder.forget_after(self.epoch)


def _steps(samples: int, batch_size: int) -> int:
    return -(-samples // batch_size)
