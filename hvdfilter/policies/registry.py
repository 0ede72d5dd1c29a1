"""Policies by name: `make("kakurenbo", keep=0.7)`.

A user's own policy is one frozen dataclass under `@register`; its fields become its options.
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Policy, option_names

P = TypeVar("P", bound=Policy)
_policies: dict[str, type[Policy]] = {}


def register(policy: type[P]) -> type[P]:
    """Class decorator: make the policy known under its `name`."""
    if policy.name in _policies and _policies[policy.name] is not policy:
        raise InputError(f"a policy named {policy.name!r} exists already: choose another name")
    _policies[policy.name] = policy
    return policy


def available() -> list[str]:
    """The names `make` knows, sorted."""
    return sorted(_policies)


def get(name: str) -> type[Policy]:
    """The policy class called `name`; `InputError` with the nearest name when there is none."""
    if name not in _policies:
        raise InputError(f"unknown policy {name!r}{_hint(name, available())}")
    return _policies[name]


def make(name: str, /, **options: Any) -> Policy:
    """Build the policy `name` with `options`.

    Raises `InputError` for an unknown name or option (with the nearest one that exists), an
    option of the wrong type, or a value the policy refuses.
    """
    policy = get(name)
    known = option_names(policy)
    types = get_type_hints(policy)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"policy {name!r} has no option {option!r}{_hint(option, known)}")
        options[option] = _typed(name, option, value, types[option])
    return policy(**options)


def describe() -> list[tuple[str, str, str]]:
    """One row a policy, for a person: name, options with their defaults, what it does."""
    rows = []
    for name in available():
        policy = _policies[name]
        options = ", ".join(f"{f.name}={f.default!r}" for f in fields(policy))  # type: ignore[arg-type]
        rows.append((name, options, (policy.__doc__ or "").strip().splitlines()[0]))
    return rows


def _hint(wrong: str, names: list[str]) -> str:
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    listed = ", ".join(names) or "none"
    return (
        f": did you mean {near[0]!r}? (there are: {listed})" if near else f" (there are: {listed})"
    )


def _typed(policy: str, option: str, value: Any, wanted: Any) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted in (float, int, bool, str) and type(value) is not wanted:
        raise InputError(
            f"policy {policy!r}: option {option}={value!r} must be of type {wanted.__name__}"
        )
    return value
