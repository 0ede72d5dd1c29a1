"""Starts a run: options checked on all ranks, other models trained first where it needs them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from hvdfilter import launchers, policies
from hvdfilter.training import backward, budget, elastic, growth, opening, optimizer, ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Called, Follower, Following
from hvdfilter.training.loop import Progress, Report, Result, Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.training.run_folder import RunFolder
from hvdfilter.training.watchdog import Watchdog
from hvdfilter.world import World


def train(
    config: TrainConfig,
    progress: Progress = lambda epoch, step, steps: None,
    report: Report = lambda record: None,
    followers: Sequence[Follower] = (),
) -> Result:
    """Collective. Train as `config` says. followers: see `hvdfilter.training.following`.

    Raises `InputError` or `WorldError` on every rank; `Preempted`, after a checkpoint, when the
    scheduler asked any rank to stop.
    """
    start = partial(ring.start, config.fusion_mb, config.cycle_time_ms, config.elastic)
    with Watchdog(60 * config.silence_minutes) as watchdog, Watch() as watch:

        def live(config: TrainConfig, world: World) -> Result:
            with world.collective.errors_shared():
                config.check()
                policy = policies.make(config.policy, **config.policy_options)
                if config.budget_seconds is not None:
                    budget.check(policy)
            with Following([Called(progress, report), *followers]).open(world) as following:
                following.expect({"": config.epochs})
                trainer = begin(config, world, watch, following, watchdog)
                return trainer.run(watch, *following.begin(trainer))

        if config.elastic and launchers.elastic_job():
            return elastic.run(live, config, start, watch, watchdog)
        return live(config, start())


def check(config: TrainConfig, policy: policies.Policy) -> None:
    """Raise `InputError` where `config` asks for what does not go together."""
    opening.check(policy, config.epochs)
    backward.check(policy, config.shaping is not None)
    growth.plan(config, policy)
    optimizer.check(config)


def begin(
    config: TrainConfig,
    world: World,
    watch: Watch,
    following: Following,
    watchdog: Watchdog | None = None,
) -> Trainer:
    """Collective. The trainer of a run, whose policy may first have other models trained.

    Raises as `train` does.
    """
    started = time.perf_counter()
    with world.collective.errors_shared():
        policy = policies.make(config.policy, **config.policy_options)
        check(config, policy)
    if not opening.several(policy):
        return Trainer(config, world, policy, watchdog=watchdog)
    folder = RunFolder.open(config.runs, config.name, config.plain(), world, config.resume)

    def start(other: TrainConfig, policy: policies.Policy) -> Trainer:
        return Trainer(other, world, policy, watchdog=watchdog)

    policy = opening.prepare(config, policy, folder.path, start, watch, following, world)
    return Trainer(config, world, policy, folder, started, watchdog)
