"""Wrapping: what a policy around another policy shares with every other such one.

In sentences, columns and the rate it is the policy inside; a subclass changes the plan.
"""

from __future__ import annotations

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
    def scale_lr(self) -> bool:  # type: ignore[override]
        """As the policy inside."""
        return self.inner.scale_lr


def keep_of(policy: Policy) -> float | None:
    """The `keep` option of a policy, or of the one it goes around; None where it has none."""
    if isinstance(policy, Wrapping):
        return keep_of(policy.inner)
    if "keep" not in {option.name for option in fields(policy)}:  # type: ignore[arg-type]
        return None
    keep: float = policy.keep  # type: ignore[attr-defined]
    return keep


def with_keep(policy: Policy, keep: float) -> Policy:
    """The same policy with another `keep`."""
    if isinstance(policy, Wrapping):
        return replace(policy, inner=with_keep(policy.inner, keep))
    return replace(policy, keep=keep)  # type: ignore[type-var]
