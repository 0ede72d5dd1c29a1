"""Registry: things by name; what is built in, what a package brings, and what a user points at.

One mechanism for policies, models and data sets: a name, `MODULE:NAME` for something of one's own,
and an entry point for a package that others install. It imports nothing before it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from hvdfilter.errors import InputError

T = TypeVar("T")
_OWN = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)(?::(.*))?")


class Registry(Generic[T]):
    """What is known of one kind of thing.

    kind: what to call it ("policy"). group: of the entry points, such as `hvdfilter.policies`.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._known: dict[str, T] = {}
        self._usage: dict[str, str] = {}

    def add(self, name: str, thing: T, usage: str | None = None) -> T:
        """Make `thing` known. usage: how it is written where that is more than its name.

        Raises `InputError` when something else has this name.
        """
        if self._known.setdefault(name, thing) is not thing:
            raise InputError(f"a {self.kind} named {name!r} exists already: choose another name")
        self._usage[name] = usage or name
        return thing

    def names(self) -> list[str]:
        """Every name: what is known here first, then what installed packages bring."""
        return [*self._known, *sorted(set(self._brought()) - set(self._known))]

    def usages(self) -> list[str]:
        """How each of them is written."""
        return [self._usage.get(name, name) for name in self.names()]

    def find(self, text: str) -> tuple[T, str]:
        """What `text` names, and what follows its name and a colon: "" if nothing does.

        Raises `InputError` with the nearest name where there is none, and with the reason where
        `MODULE:NAME`, or a package's entry point, cannot be imported.
        """
        name, _, rest = text.partition(":")
        if name in self._known:
            return self._known[name], rest
        brought = self._brought()
        if name in brought:
            return self._loaded(brought[name]), rest
        own = _OWN.fullmatch(text)
        if own is None:
            raise self._unknown(text, name)
        module, attribute, rest = own.groups()
        return self._imported(text, name, module, attribute), rest or ""

    def _brought(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def _loaded(self, entry: EntryPoint) -> T:
        try:
            thing: T = entry.load()
        except Exception as broken:  # a package of somebody else's may fail in any way
            raise InputError(
                f"{self.kind} {entry.name!r}, which an installed package brings as {entry.value}, "
                f"cannot be imported ({type(broken).__name__}: {broken}): repair or remove it"
            ) from broken
        return thing

    def _imported(self, text: str, name: str, module: str, attribute: str) -> T:
        # A command does not look where it is started, as `python script.py` does.
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as missing:
            if missing.name is not None and f"{module}.".startswith(f"{missing.name}."):
                raise self._unknown(text, name, f" and no module {missing.name!r}") from None
            raise InputError(f"{self.kind} {text!r} needs {missing.name}: install it") from missing
        except Exception as broken:
            raise InputError(
                f"{self.kind} {text!r}: {module} cannot be imported "
                f"({type(broken).__name__}: {broken})"
            ) from broken
        if not hasattr(found, attribute):
            where = getattr(found, "__file__", module)
            there = [word for word in vars(found) if not word.startswith("_")]
            raise InputError(
                f"{self.kind} {text!r}: {where} has no {attribute!r}"
                + _meant(attribute, {word: f"{module}:{word}" for word in there}, 0.6)
            )
        thing: T = getattr(found, attribute)
        return thing

    def _unknown(self, text: str, name: str, also: str = "") -> InputError:
        usages = dict(zip(self.names(), self.usages(), strict=True))
        listed = f"{', '.join(usages.values())}, and MODULE:NAME for one of your own"
        meant = _meant(name, usages)
        there = f" (there are: {listed})" if meant else f"; choose from {listed}"
        return InputError(f"unknown {self.kind} {text!r}{also}{meant}{there}")


def nearest(wrong: str, names: Iterable[str], cutoff: float = 0.4) -> str | None:
    """The name that was probably meant, if any is near."""
    return next(iter(difflib.get_close_matches(wrong, list(names), n=1, cutoff=cutoff)), None)


def hint(wrong: str, names: Iterable[str]) -> str:
    """What ends a sentence about an option that is none: the one that was meant, and all."""
    names = list(names)
    near, listed = nearest(wrong, names, cutoff=0.5), ", ".join(names) or "none"
    meant = "" if near is None else f": did you mean {near!r}?"
    return f"{meant} (there are: {listed})"


def typed(owner: str, option: str, value: Any, wanted: Any) -> Any:
    """`value` for an option of type `wanted`, an int made a float; else `InputError`."""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 1 << 63 else math.inf
    if wanted in (float, int, bool, str) and type(value) is not wanted:
        raise InputError(f"{owner}: option {option}={value!r} must be of type {wanted.__name__}")
    return value


def _meant(wrong: str, usages: dict[str, str], cutoff: float = 0.4) -> str:
    near = nearest(wrong, usages, cutoff)
    return "" if near is None else f"; did you mean {usages[near]}?"


def takes(thing: Any, *arguments: Any) -> bool:
    """Whether a user's own can be called with these; true where Python cannot tell."""
    if not callable(thing):
        return False
    try:
        signature = inspect.signature(thing, follow_wrapped=False)
    except (TypeError, ValueError):  # of what is not written in Python
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
