"""`compare(config)`: the same work under a policy, in full, and at random, in one job.

The runs take turns, an epoch each, so that whatever disturbs the machine disturbs all of them. Each
leaves an ordinary run folder. A comparison that is cut off is started again, not resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from hvdfilter import policies
from hvdfilter.errors import InputError
from hvdfilter.filter import Filter
from hvdfilter.training import growth, ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Follower, Following
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.training.start import begin
from hvdfilter.world import World


@dataclass(frozen=True)
class AsMany(policies.Policy):
    """Hide as many samples as another filter does in the same epoch, chosen at random.

    subject: the other filter, which must have begun the epoch. It may decide by what it learnt in
    the epoch before, so no schedule of budgets can be given beforehand.
    """

    name: ClassVar[str] = "random"
    subject: Filter = field(repr=False)
    scale_lr: bool = True

    def plan(self, view: policies.View) -> policies.Plan:
        """A fresh random order, cut where the subject's draws are."""
        return policies.Plan(
            view.random_keys(view.epoch), min(view.num_samples, self.subject.trained)
        )


def compare(config: TrainConfig, followers: Sequence[Follower] = ()) -> dict[str, Path]:
    """Collective. Train as `config` says, beside a `full` run and a random one of as many steps.

    followers: of all of them, whose turn is named by its policy.
    Returns the run folders by policy, the subject's first. Raises `InputError`, on every rank, for
    a configuration that cannot be compared.
    """
    world = ring.start(config.fusion_mb, config.cycle_time_ms)
    with world.collective.errors_shared():
        config = settled(config)
        policy = policies.make(config.policy, **config.policy_options)
    with Following(followers).open(world) as following:
        runs = _trained(config, world, policy, following)
    return {name: trainer.folder.path for name, trainer in runs.items()}


def settled(config: TrainConfig) -> TrainConfig:
    """The configuration with what all runs share; `InputError` where they cannot be compared."""
    check(config)
    if config.batch_growth == 1:
        return config
    policy = policies.make(config.policy, **config.policy_options)
    return replace(config, batch_growth_epoch=growth.plan(config, policy).start)


def _trained(
    config: TrainConfig, world: World, policy: policies.Policy, following: Following
) -> dict[str, Trainer]:
    """The runs, trained by turns to their ends."""
    # No warning is watched for: a checkpoint of one run of three would be of no use.
    watch = Watch()
    following.expect({run.policy: run.epochs for run in runs_of(config)})
    subject = begin(_named(config, config.policy), world, watch, following)
    runs = {config.policy: subject, "full": Trainer(_named(config, "full"), world)}
    if config.policy != "random":
        policy = AsMany(subject.filter, scale_lr=subject.filter.policy.scale_lr)
        options = {"as_many_as": subject.folder.path.name}
        runs["random"] = Trainer(_named(config, "random", options), world, policy)
    followed = {name: following.begin(run, name) for name, run in runs.items()}
    for epoch in range(config.epochs):
        for name in _turns(runs, epoch):
            progress, report = followed[name]
            report(runs[name].run_epoch(watch, progress))
    for trainer in runs.values():
        trainer.save()
        trainer.saving.settle()  # nothing comes after it that would tell of a full disk
    return runs


def check(config: TrainConfig) -> None:
    """Raise `InputError` for what cannot be compared."""
    config.check()
    policies.make(config.policy, **config.policy_options)
    if config.policy == "full":
        raise InputError("policy=full is what others are compared with: choose another")
    if config.budget_seconds is not None:
        raise InputError("budget_seconds is for train: runs that are compared share the clock")
    if config.elastic:
        raise InputError("elastic is for train: a comparison keeps its ranks")
    if config.resume:
        raise InputError("a comparison cannot be resumed: start it without --resume")


def runs_of(config: TrainConfig) -> list[TrainConfig]:
    """The runs of a comparison, the subject's first; how many the random one hides shows later."""
    names = dict.fromkeys((config.policy, "full", "random"))
    return [_named(config, name) for name in names]


def _named(config: TrainConfig, policy: str, options: dict[str, Any] | None = None) -> TrainConfig:
    """The configuration of one of the runs."""
    if policy == config.policy:
        options = config.policy_options
    name = None if config.name is None else f"{config.name}-{policy}"
    return replace(config, policy=policy, policy_options=options or {}, name=name)


def _turns(runs: dict[str, Trainer], epoch: int) -> list[str]:
    """Who trains when: the full run first and last by turns, the random one after its subject."""
    others = [name for name in runs if name != "full"]
    return ["full", *others] if epoch % 2 == 0 else [*others, "full"]
