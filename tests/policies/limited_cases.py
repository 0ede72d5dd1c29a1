"""A policy of each form that a plan can have, and what several ranks make of its plans together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hvdfilter.agreement import Blocks, select, statistics
from hvdfilter.policies import Plan, Policy, View
from tests.agreement.worlds import ThreadCollective, run_world

RANKS = (1, 2, 3, 4)
SEED = 5
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Toy(Policy):
    """One policy of each form a plan can have, over column `loss`."""

    name: ClassVar[str] = "toy"
    columns: ClassVar[tuple[str, ...]] = ("loss",)
    form: str = "budget"
    keep: float = 0.5

    def plan(self, view: View) -> Plan:
        n, ids, loss = view.num_samples, view.ids, view.column("loss")
        coin = view.uniform(view.epoch) < self.keep
        key = np.where(np.isfinite(loss), loss, 0).astype(np.float32)
        weight = (1 + ids % 3).astype(np.float32)
        if self.form == "coin":  # Bernoulli: all keys tie
            return Plan(np.zeros_like(key), 0, coin, weight=weight)
        if self.form == "nothing":
            return Plan(np.zeros_like(key), 0)
        if self.form == "draws":  # with replacement: all are kept, some drawn zero times
            return Plan(key, 0, ids % 2 == 0, weight=weight, repeats=ids % 3)
        if self.form == "groups":
            return Plan(key, np.array([n // 5, 0, n]), coin, groups=ids * 7 % 3)
        if self.form == "mean":
            middle, (median,) = view.mean("loss"), view.quantiles("loss", [0.5])
            return Plan(np.full_like(key, median), 0, loss > middle)
        return Plan(key, int(self.keep * n))


def columns_of(n: int, seed: int = 0) -> Columns:
    """Losses of many ties, some samples never observed, one class that is rare."""
    rng = np.random.default_rng(seed)
    loss = rng.exponential(size=n).round(1).astype(np.float32)
    age = rng.choice([-1, 1, 2], n, p=[0.1, 0.7, 0.2]).astype(np.int16)
    loss[age == -1] = np.inf
    labels = rng.choice([-1, 0, 1, 2, 5], n, p=[0.05, 0.5, 0.3, 0.1, 0.05])
    return {"loss": loss, "age": age, "correct": rng.uniform(size=n) < 0.6, "label": labels}


@dataclass
class Outcome:
    """What all ranks make of a plan, over all samples."""

    kept: np.ndarray
    key: np.ndarray
    weight: np.ndarray
    repeats: np.ndarray


def outcome(
    policy: Policy, columns: Columns, ranks: int, epoch: int = 3, epochs: int = 10
) -> Outcome:
    n = len(columns["loss"])
    blocks = Blocks(n, ranks)

    def body(collective: ThreadCollective) -> Outcome:
        start, stop = blocks.start(collective.rank), blocks.stop(collective.rank)
        mine = {name: column[start:stop] for name, column in columns.items()}

        def quantiles(name: str, q: list[float]) -> np.ndarray:
            return statistics.quantiles(mine[name][np.isfinite(mine[name])], q, collective)

        view = View(
            epoch,
            epochs,
            n,
            start,
            stop,
            SEED,
            mine.__getitem__,
            lambda name: statistics.mean(mine[name], collective),
            quantiles,
            mine["label"],
            collective.allreduce,
            collective.exscan,
        )
        plan = policy.plan(view)
        kept = select(plan.key, plan.keep, blocks, collective, groups=plan.groups)
        kept |= False if plan.always is None else plan.always
        ones = np.ones(stop - start)
        repeats = ones if plan.repeats is None else plan.repeats
        return Outcome(
            kept & (repeats > 0), plan.key, ones if plan.weight is None else plan.weight, repeats
        )

    parts = run_world(ranks, body)
    return Outcome(
        *(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0]))
    )
