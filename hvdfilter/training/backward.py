"""What a policy needs of a backward, made in the one that a training step does anyway.

Norms and clusters of per-sample gradients; for a policy that needs neither it does nothing. It
changes no gradient that the step uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from hvdfilter.clustering import GradientClusters
from hvdfilter.errors import InputError
from hvdfilter.policies import Policy
from hvdfilter.policies.wrapping import innermost
from hvdfilter.scoring.grad_norm import GradNorm
from hvdfilter.world import World

# What is made here of `Policy.own_scores`.
MADE = ("grad_norm", "cluster", "distance")


def own_scores(policy: Policy) -> Mapping[str, str]:
    """The scores of its own that `policy` will ask for: none where it reads a score file."""
    return policy.own_scores if policy.columns else {}


def check(policy: Policy, shaped: bool = False) -> None:
    """Refuse a policy whose scores only a script of its own can make, or that want clean inputs."""
    if shaped and own_scores(policy):
        raise InputError(
            f"policy {policy.name!r} chooses by gradients of the samples as they are: leave out "
            "--shaping, which trains on others"
        )
    if foreign := sorted(own_scores(policy).keys() - set(MADE)):
        raise InputError(
            f"policy {policy.name!r} needs {foreign[0]}, which only a script of your own can give: "
            f"there, call filt.observe(ids, {foreign[0]}=...) after each backward"
        )


class Backward:
    """Entered around forward and backward of a step; `scores` are then those of its samples."""

    def __init__(self, policy: Policy, model: nn.Module, seed: int, world: World) -> None:
        self._own, inner = own_scores(policy), innermost(policy)
        self._norm = GradNorm(model) if "grad_norm" in self._own else None
        self._clusters = None
        if "cluster" in self._own:
            number = getattr(inner, "clusters", 16)
            self._clusters = GradientClusters(model, number, seed=seed, world=world)
        self._watching = ExitStack()

    def __enter__(self) -> Backward:
        for watcher in (self._norm, self._clusters):
            if watcher is not None:
                self._watching.enter_context(watcher)
        return self

    def __exit__(self, *error: Any) -> None:
        self._watching.close()

    @property
    def needed(self) -> bool:
        """Whether the policy asks for anything."""
        return self._norm is not None or self._clusters is not None

    def scores(self, weight: Tensor | None) -> dict[str, Tensor]:
        """Of a mean loss of samples that weigh so, float32 [B]: each value [B], by name."""
        found = {}
        if self._norm is not None:
            found["grad_norm"] = self._norm.norms(weight)
        if self._clusters is not None:
            found["cluster"] = self._clusters.assign(weight)
            found["distance"] = self._clusters.distances
        return {name: value for name, value in found.items() if name in self._own}

    def end_epoch(self) -> None:
        """Collective. Move the centres of the clusters."""
        if self._clusters is not None:
            self._clusters.end_epoch()

    def state(self) -> dict[str, Any]:
        """Collective. What a checkpoint must hold, in plain values and tensors."""
        return {} if self._clusters is None else self._clusters.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`."""
        if self._clusters is not None:
            self._clusters.load_state_dict(state)
