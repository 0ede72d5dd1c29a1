"""A wall-clock budget: the policy's `keep` follows the clock, the same on every rank.

Rank 0 measures and decides at the end of each epoch, and the others take its decision over. The
first epoch trains everything and is what the first prediction comes from. A budget that cannot be
met is said once, and the run goes on at the smallest share: a late model is worth more than none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from hvdfilter.errors import InputError
from hvdfilter.policies import Limited, Plan, Policy, View
from hvdfilter.policies.static import Static
from hvdfilter.policies.wrapping import Wrapping, keep_of, with_keep
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.pace import SMALLEST, Decision, Epoch, Pace
from hvdfilter.world import World


@dataclass
class Share:
    """The share that the coming epoch keeps; changed between epochs."""

    keep: float = 1.0


@dataclass(frozen=True)
class Paced(Wrapping):
    """A policy whose `keep` is what the budget leaves."""

    share: Share = field(default_factory=Share, repr=False)

    def plan(self, view: View) -> Plan:
        """That of the policy inside, at this epoch's share."""
        return with_keep(self.inner, self.share.keep).plan(view)


class Budget:
    """Chooses the share of every epoch of a run from what its epochs took so far.

    policy: the one to train with is then `Budget.policy`. started: when the budget began, by
    `clock`, in seconds. A `keep` among the policy's options is the smallest share allowed, and so
    is a class floor. Raises `InputError` for a policy that cannot be paced.
    """

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        num_samples: int,
        world: World,
        started: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check(policy)
        assert config.budget_seconds is not None
        self._world, self._clock, self._started = world, clock, started
        self.policy = Paced(policy)
        least = float(config.policy_options.get("keep", SMALLEST))
        self.pace = Pace(
            config.budget_seconds,
            config.epochs,
            num_samples,
            max(least, getattr(policy, "class_floor", 0.0)),
            policy.rescores,
            lambda epoch: trains_everything(policy, epoch, config.epochs),
        )
        self._first: float | None = None  # the end as predicted after the first epoch
        self._warned = False

    @property
    def elapsed(self) -> float:
        """Seconds of the budget that are spent."""
        return self._clock() - self._started

    def end_epoch(self, record: dict[str, Any]) -> dict[str, Any]:
        """Collective. Choose the next epoch's share by the record of the one that has ended.

        Returns what there is to say, the same on all ranks: "seconds" of the budget, "elapsed",
        "keep" of the next epoch and the "predicted" end; once, where it cannot be met, a "warning";
        after the last epoch the "error" of the first prediction, as a share of the time taken.
        """
        text = json.dumps(self._decide(record)) if self._world.rank == 0 else ""
        said: dict[str, Any] = json.loads(self._world.collective.broadcast_bytes(text.encode()))
        self.policy.share.keep = said["keep"]
        return said

    def _decide(self, record: dict[str, Any]) -> dict[str, Any]:
        pace, now, seconds = self.pace, self.elapsed, record["seconds"]
        everything = pace.trains_everything(record["epoch"])
        rescoring = seconds.get("rescoring", 0.0)
        epoch = Epoch(
            whole=seconds["total"],
            training=seconds["training"],
            rescoring=rescoring,
            trained=record["kept"],
            rescored=record["hidden"] if rescoring else 0,
            asked=0.0 if everything else 1 - self.policy.share.keep,
        )
        pace.measured.append(epoch)
        decision = pace.decide(now, seconds.get("checkpoint", 0.0))
        self._first = self._first or decision.predicted
        said: dict[str, Any] = {"seconds": pace.budget, "elapsed": now, **asdict(decision)}
        if not said.pop("met") and not self._warned:
            said["warning"], self._warned = self._warning(decision), True
        if len(pace.measured) == pace.epochs:
            said["error"] = self._first / decision.predicted - 1
        return said

    def _warning(self, decision: Decision) -> str:
        return (
            f"the budget of {self.pace.budget:g} s cannot be met: at the smallest share allowed, "
            f"{self.pace.least:.0%} of the samples, training would end after "
            f"{decision.predicted:.1f} s; it goes on at that share"
        )

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on with what is left; that of rank 0 counts."""
        return {
            "elapsed": self.elapsed,
            "keep": self.policy.share.keep,
            "first": self._first,
            "warned": self._warned,
            "measured": [asdict(epoch) for epoch in self.pace.measured],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`; the time between the two runs is not counted."""
        self._started -= state["elapsed"]
        self._first, self._warned = state["first"], state["warned"]
        self.policy.share.keep = state["keep"]
        self.pace.measured = [Epoch(**epoch) for epoch in state["measured"]]


def check(policy: Policy) -> None:
    """Raise `InputError` for a policy whose share cannot follow the clock."""
    if keep_of(policy) is None:
        raise InputError(
            f"budget_seconds needs a policy with the option keep, which {policy.name!r} has not: "
            "choose another, such as random or kakurenbo"
        )
    if policy.one_keep:
        raise InputError(
            f"budget_seconds changes keep from epoch to epoch, which {policy.name!r} does not "
            "allow: choose another, such as random or kakurenbo"
        )
    if isinstance(policy, Limited) and policy.fraction != "constant":
        raise InputError(
            f"budget_seconds chooses the share of every epoch, and so does "
            f"fraction={policy.fraction!r}: give one of them"
        )


def trains_everything(policy: Policy, epoch: int, epochs: int) -> bool:
    """Whether warm-up, an opening or the annealing of `Limited` has `epoch` train all samples."""
    if isinstance(policy, Limited) and policy.trains_everything(epoch, epochs):
        return True
    if isinstance(policy, Wrapping):
        return trains_everything(policy.inner, epoch, epochs)
    if isinstance(policy, Static) and not policy.scores:
        return epoch < policy.opening
    warmup = getattr(policy, "warmup", 0)
    return isinstance(warmup, int) and epoch < warmup
