"""YAML that is no more than it seems: text of a limited length, no aliases, few levels.

A file of half a kilobyte whose aliases name one another stands for billions of values, and a
thousand brackets for as many calls. Neither is needed to describe a run, so both are refused before
anything is built of them. It never constructs an object of any but YAML's plain types.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hvdfilter import files
from hvdfilter.errors import InputError

MOST_BYTES = 1 << 20
MOST_LEVELS = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What PyYAML lets through of the conversions that it makes: dates, numbers, keys.
FAULTS = (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice, not as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read(path: Path, what: str) -> dict[str, Any]:
    """The mapping of names to values in a file; InputError, one sentence, for anything else.

    what: what the file holds, for the sentence.
    """
    try:
        text = files.read(path, MOST_BYTES, what).decode()
        check(text)
        loaded = yaml.load(text, _LOADER)
    except InputError:
        raise
    except FAULTS as fault:
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise InputError(f"{path}: is no {what}, or a damaged one ({reason}).") from None
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise InputError(f"{path}: is no {what}, for it is not a list of NAME: VALUE.")
    return loaded


def dump(values: Mapping[str, Any], of: str) -> str:
    """YAML that `read` takes; `InputError` for a value that is not plain. of: whose they are."""
    try:
        text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)
        check(text)
    except (yaml.YAMLError, RecursionError) as odd:
        reason = " ".join(str(odd).split())
        raise InputError(f"an option of {of} is no plain value: {reason}") from None
    return text


def check(text: str) -> None:
    """Raise `yaml.YAMLError` for what would grow or nest beyond bounds; builds nothing."""
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"it is longer than {MOST_BYTES} characters")
    level = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"write out the value instead of the alias *{event.anchor}")
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise yaml.YAMLError(f"it nests deeper than {MOST_LEVELS} levels")
