"""Policies by name: `make("kakurenbo", keep=0.7)`.

A user's own policy is one frozen dataclass; its fields become its options. It is found as
`MODULE:CLASS`, under its name once `@register` has seen it, or, in a package, as an entry point of
the group `hvdfilter.policies`.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Policy, option_names
from hvdfilter.policies.limited import COMMON, Limited
from hvdfilter.registry import Registry, hint, typed

P = TypeVar("P", bound=Policy)
_policies: Registry[type[Policy]] = Registry("policy", "hvdfilter.policies")


def register(policy: type[P]) -> type[P]:
    """Class decorator: make the policy known under its `name`."""
    _policies.add(policy.name, policy)
    return policy


def available() -> list[str]:
    """The names `make` knows, sorted."""
    return sorted(_policies.names())


def get(name: str) -> type[Policy]:
    """The policy class called `name`, or at `MODULE:CLASS`.

    Raises `InputError`, with the nearest name, when there is none, and for what is no policy.
    """
    policy, rest = _policies.find(name)
    if rest:
        raise InputError(f"policy {name!r} takes nothing after its name: give options by theirs")
    if not (isinstance(policy, type) and issubclass(policy, Policy) and is_dataclass(policy)):
        raise InputError(
            f"{name!r} is no policy: write a subclass of hvdfilter.policies.Policy that is a "
            "frozen dataclass"
        )
    return policy


def make(name: str, /, **options: Any) -> Policy:
    """Build the policy `name`, or the one at `MODULE:CLASS`, with `options`.

    options: its own, and those of `Limited`, which every policy takes; one that both have is the
    policy's. Without any of `Limited` the result is the policy itself.

    Raises `InputError` for an unknown name or option (with the nearest one that exists), an
    option of the wrong type, or a value the policy refuses.
    """
    policy = get(name)
    known = option_names(policy)
    types = {**get_type_hints(Limited), **get_type_hints(policy)}
    own: dict[str, Any] = {}
    common: dict[str, Any] = {}
    for option, value in options.items():
        if option not in known and option not in COMMON:
            every = known + [other for other in COMMON if other not in known]
            raise InputError(f"policy {name!r} has no option {option!r}{hint(option, every)}")
        (own if option in known else common)[option] = typed(
            f"policy {name!r}", option, value, types[option]
        )
    made = policy(**own)
    return Limited(made, **common) if common else made


def describe() -> list[tuple[str, str, str, str, str]]:
    """A row a policy, for a person: name, options with defaults, what it does, cost, source."""
    rows = []
    for name in available():
        policy = get(name)
        options = ", ".join(f"{f.name}={f.default!r}" for f in fields(policy))  # type: ignore[arg-type]
        does = (policy.__doc__ or "").strip().splitlines()[0]
        rows.append((name, options, does, policy.cost, policy.source))
    return rows
