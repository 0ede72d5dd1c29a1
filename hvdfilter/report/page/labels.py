"""What groups of runs are called: their policy, and no more than tells them from each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hvdfilter.report.compare import SAME_WORK

_TOLD = 2  # most settings in a name; of more, the folder's name says which run it is


def labels_of(settings: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> list[str]:
    """The policy of each, and whatever else it takes to tell it from the others.

    settings: flat options, one a group; folders: what its folders are called.
    """
    policies = [str(one.get("policy")) for one in settings]
    labels = []
    for one, policy, folder in zip(settings, policies, folders, strict=True):
        # Against all of its policy; and the work, against all.
        same = [other for other, theirs in zip(settings, policies, strict=True) if theirs == policy]
        names = [name for name in _keys(same) if _differs(name, same)]
        names += [n for n in ("data", "model", "ranks", *SAME_WORK) if _differs(n, settings)]
        told = [
            f"{name.removeprefix('policy_options.').replace('_', ' ')} {one.get(name)}"
            for name in dict.fromkeys(names)
            if name != "seed" and one.get(name) is not None
        ]
        by_folder = len(told) > _TOLD and folders.count(folder) == 1
        labels.append(", ".join([policy, *([folder] if by_folder else told)]))
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: at + 1].count(label)})"
        for at, label in enumerate(labels)
    ]


def _keys(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in settings for name in one))


def _differs(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    return len({json.dumps(one.get(name), default=str) for one in settings}) > 1
