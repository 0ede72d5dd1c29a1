"""Wrapping: what a policy around another policy shares with every other such one.

In sentences, columns and the rate it is the policy inside; a subclass changes the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Policy


@dataclass(frozen=True)
class Wrapping(Policy):
    """Base of the policies that hold another one, `inner`."""

    inner: Policy

    def __init_subclass__(cls) -> None:
        pass  # a class name would hide the name of the policy inside

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Policy):
            raise InputError(
                f"{type(self).__name__} goes around a policy, not {self.inner!r}: "
                "make one by hvdfilter.policies.make(NAME)"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the policy inside."""
        return self.inner.name

    @property
    def columns(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Those of the policy inside."""
        return self.inner.columns

    @property
    def rescores(self) -> bool:  # type: ignore[override]
        """As the policy inside."""
        return self.inner.rescores

    @property
    def one_keep(self) -> bool:  # type: ignore[override]
        """As the policy inside."""
        return self.inner.one_keep

    @property
    def own_scores(self) -> Mapping[str, str]:  # type: ignore[override]
        """As the policy inside."""
        return self.inner.own_scores

    @property
    def scale_lr(self) -> bool:  # type: ignore[override]
        """As the policy inside."""
        return self.inner.scale_lr


def innermost(policy: Policy) -> Policy:
    """The policy that goes around no other."""
    return innermost(policy.inner) if isinstance(policy, Wrapping) else policy


def with_innermost(policy: Policy, inner: Policy) -> Policy:
    """The same policies around another innermost one."""
    if isinstance(policy, Wrapping):
        return replace(policy, inner=with_innermost(policy.inner, inner))
    return inner


def keep_of(policy: Policy) -> float | None:
    """The `keep` option of the innermost policy; None where it has none."""
    inner = innermost(policy)
    if "keep" not in {option.name for option in fields(inner)}:  # type: ignore[arg-type]
        return None
    keep: float = inner.keep  # type: ignore[attr-defined]
    return keep


def with_keep(policy: Policy, keep: float) -> Policy:
    """The same policies, the innermost one with another `keep`."""
    return with_innermost(policy, replace(innermost(policy), keep=keep))  # type: ignore[type-var]
