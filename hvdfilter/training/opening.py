"""The opening phase over several models: where a static policy asks for more seeds than one.

Each model is trained, on everything, for the opening epochs of the run's own schedule; the mean of
what they say of every sample becomes a score file, from which the run then chooses. All of it lies
in RUN/opening: `scores.parquet`, and a run folder a seed. It can be cut off anywhere: a model goes
on from its checkpoint, and a finished file is used as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.errors import InputError
from hvdfilter.policies import Policy, score_file
from hvdfilter.policies.static import Static
from hvdfilter.policies.wrapping import innermost, with_innermost
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Following
from hvdfilter.training.preemption import Preempted, Watch
from hvdfilter.training.run_folder import read_metrics
from hvdfilter.world import World

# Makes the `Trainer` of a configuration and a policy.
Start = Callable[[TrainConfig, Policy], Any]


def several(policy: Policy) -> bool:
    """Whether `policy` needs models that nobody has trained yet."""
    inner = innermost(policy)
    return isinstance(inner, Static) and not inner.scores and getattr(inner, "seeds", 1) > 1


def check(policy: Policy, epochs: int) -> None:
    """Refuse an opening as long as the run: its models would be trained for nothing."""
    inner = innermost(policy)
    if several(policy) and inner.opening >= epochs:  # type: ignore[attr-defined]
        raise InputError(
            f"policy {policy.name!r}: opening={inner.opening} must be "  # type: ignore[attr-defined]
            f"less than epochs={epochs}, of which the models of its seeds train that many"
        )


def prepare(
    config: TrainConfig,
    policy: Policy,
    run: Path,
    start: Start,
    watch: Watch,
    following: Following,
    world: World,
) -> Policy:
    """Collective. `policy` with the score file of its opening, which is made if need be.

    run: folder of the run. The models have the seeds after the run's own. Raises `Preempted` of
    `run` when any rank was told to stop.
    """
    static = innermost(policy)
    assert isinstance(static, Static)
    file = run / "opening" / "scores.parquet"
    if world.collective.broadcast(np.array([file.exists()], np.int64))[0]:
        return with_innermost(policy, replace(static, scores=str(file)))
    seeds = [config.seed + 1 + number for number in range(getattr(static, "seeds", 1))]
    following.expect({_turn(seed): static.opening for seed in seeds})
    one = replace(static, seeds=1)  # type: ignore[call-arg]
    sums = {field.name: np.zeros(()) for field in static.fields}
    cost = 0.0
    for seed in seeds:
        mine = replace(config, seed=seed, runs=file.parent, name=f"seed-{seed}", resume=True)
        mine = replace(mine, budget_seconds=None)  # the run's own, of which this takes a part
        trainer = start(mine, one)
        progress, report = following.begin(trainer, _turn(seed), static.opening)
        while trainer.epoch < static.opening:
            try:
                report(trainer.run_epoch(watch, progress))
            except Preempted:
                raise Preempted(run) from None
            trainer.save()
        trainer.saving.settle()
        # In the order of the seeds, sample by sample: the same sum on any number of ranks.
        sums = {name: total + trainer.filter.book.column(name) for name, total in sums.items()}
        if world.rank == 0:
            cost += sum(record["cpu_seconds"] for record in read_metrics(trainer.folder.path))
    made = {
        "model": config.model,
        "data": config.data,
        "run": run.name,
        "trained_on": config.data,
        "epochs": static.opening,
        "seeds": seeds,
        "cpu_seconds": cost,
        "torch": torch.__version__,
    }
    means = {name: (total / len(seeds)).astype(np.float32) for name, total in sums.items()}
    _write(file, means, trainer, made, world)
    return with_innermost(policy, replace(static, scores=str(file)))


def _turn(seed: int) -> str:
    return f"opening, seed {seed}"


def _write(
    file: Path, means: dict[str, NDArray[np.float32]], trainer: Any, made: Any, world: World
) -> None:
    book, labels = trainer.filter.book, trainer.train_set.labels
    mine = labels[book.start : book.start + book.length]
    score_file.write(file, means, mine, book.num_samples, made, world.collective)
