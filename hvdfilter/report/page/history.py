"""What a line of `metrics.jsonl` may say for people, looked at before it is drawn.

Lines of older runs, and of scripts, have none of it; what is there must be whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvdfilter.errors import InputError

Record = dict[str, Any]


def check(records: Sequence[Record], path: Path) -> None:
    """Raise `InputError`, naming the line, where one of the fields is not what it should be."""
    lengths: dict[str, int] = {}
    for number, record in enumerate(records):
        try:
            _classes(record.get("classes"), lengths)
            _numbers([record.get("classes_uncounted", 0)], whole=True)
            _scores(record.get("scores"))
            _mask(record.get("mask"), lengths)
        except (TypeError, ValueError, KeyError, AttributeError) as wrong:
            reason = str(wrong) or type(wrong).__name__
            raise InputError(
                f"{path} is damaged in line {number + 1}: {reason} in what it says of classes, "
                "scores or mask"
            ) from None


def _classes(said: Any, lengths: dict[str, int]) -> None:
    if said is None:
        return
    samples, kept = _numbers(said["samples"], whole=True), _numbers(said["kept"], whole=True)
    _as_long("classes", samples, lengths)
    _as_long("classes", kept, lengths)


def _scores(said: Any) -> None:
    for name, one in (said or {}).items():
        edges = _numbers(one["edges"])
        if sorted(edges) != edges:
            raise ValueError(f"edges of {name} that do not rise")
        for part in ("kept", "hidden"):
            if len(_numbers(one[part], whole=True)) != len(edges) - 1:
                raise ValueError(f"{part} of another length than the edges of {name}")
        if one["threshold"] is not None:
            _numbers([one["threshold"]])


def _mask(said: Any, lengths: dict[str, int]) -> None:
    if said is None:
        return
    _numbers([said[name] for name in ("stayed", "turnover") if said.get(name) is not None])
    if "since_seen" in said:
        _as_long("since_seen", _numbers(said["since_seen"], whole=True), lengths)


def _as_long(name: str, values: list[float], lengths: dict[str, int]) -> None:
    if len(values) != lengths.setdefault(name, len(values)):
        raise ValueError(f"{len(values)} {name}, elsewhere {lengths[name]}")


def _numbers(values: Any, whole: bool = False) -> list[float]:
    if not isinstance(values, list):
        raise ValueError("no list")
    # By kind and not one by one: a long run of many classes has millions of them.
    if odd := set(map(type, values)) - ({int} if whole else {int, float}):
        raise ValueError(f"a value of type {min(kind.__name__ for kind in odd)}")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value that is not finite")
    return values
