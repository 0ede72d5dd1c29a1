"""What a run folder's `config.yaml` and `metrics.jsonl` say, or one sentence on why they do not.

It reads runs of anybody, whole or damaged, and writes nothing: that is `run_folder`'s part.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from hvdfilter import files, plain_yaml
from hvdfilter.errors import InputError

MOST_BYTES = 1 << 28
"""Of `metrics.jsonl`: a million epochs of the lines that a run writes."""

# What every line has, and the least that it can be: sums and shares are made of these.
_LEAST = {"epoch": 0, "samples": 1, "kept": 0, "steps": 0, "ranks": 1, "gradient_bytes": 0}
# Hidden is negative where samples are drawn twice.
_LEAST |= {"allreduce_calls": 0, "hidden": -(2**63)}
_MOST = 2**63
# What a line may have, and is shown where it does.
_MEASURES = ("test_accuracy", "test_loss", "train_loss", "cpu_seconds", "lr", "lr_scale")
_KINDS, _OF_A_KIND = ("uniform", "policy"), {"variance", "normalised", "batches"}


def read_config(run: Path) -> dict[str, Any]:
    """The configuration a run was started with; `InputError` when there is none to read."""
    path = run / "config.yaml"
    if not os.path.exists(path):
        raise InputError(f"{run} is not a run folder: {_instead(run)}")
    config = plain_yaml.read(path, "configuration of a run")
    if not isinstance(config.get("policy"), str):
        raise InputError(f"{path}: is no configuration of a run, or a damaged one (no policy).")
    return config


def _instead(run: Path) -> str:
    """What is there in a run's place, and what was probably meant."""
    near = Path("runs") / run
    meant = f"; did you mean {near}?" if os.path.exists(near / "config.yaml") else ""
    if not os.path.exists(run):
        return f"it does not exist{meant}"
    runs = sorted(path.parent.name for path in run.glob("*/config.yaml"))
    if not runs:
        return f"it has no config.yaml{meant}"
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"it holds {runs[0]}{more}; name one"


def read_settings(run: Path) -> dict[str, Any]:
    """`read_config`, with the numbers that a further pass over the run's data needs."""
    config = read_config(run)
    for name, least in (("limit", 1), ("batch_size", 1), ("workers", 0), ("seed", 0)):
        value = config.get(name, "missing")
        if not (name in ("limit", "workers") and value is None) and (
            type(value) is not int or value < least
        ):
            raise InputError(
                f"{run / 'config.yaml'}: is no configuration of a run, or a damaged one "
                f"({name} is {value!r:.40})."
            )
    return config


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run, oldest first; `InputError` when there are none to read."""
    path = run / "metrics.jsonl"
    if not os.path.exists(path):
        raise InputError(f"{run} is not a run folder: it has no metrics.jsonl")
    return parse(metrics_text(path), path)


def metrics_text(path: Path) -> str:
    """The text of a `metrics.jsonl`."""
    try:
        return files.read(path, MOST_BYTES, "a metrics.jsonl").decode()
    except UnicodeDecodeError as broken:
        raise InputError(f"{path} is damaged: {broken}") from None


def parse(text: str, path: Path) -> list[dict[str, Any]]:
    """The records of `text`, each with all that a report needs; `InputError` naming the line."""
    records = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else []):
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, RecursionError) as broken:
            raise InputError(f"{path} is damaged in line {number + 1}: {broken}") from None
    return records


def _record(line: Any) -> dict[str, Any]:
    if not isinstance(line, dict):
        raise ValueError("it is no record of an epoch")
    for name, least in _LEAST.items():
        if type(line.get(name)) is not int or not least <= line[name] < _MOST:
            raise ValueError(f"{name} is {line.get(name)!r:.40}")
    if not isinstance(line.get("mask_digest"), str):
        raise ValueError("mask_digest is no text")
    seconds, variance = line.get("seconds"), line.get("variance", {})
    if not isinstance(seconds, dict) or "total" not in seconds or not isinstance(variance, dict):
        raise ValueError("seconds are missing")
    _numbers({name: line[name] for name in _MEASURES if name in line})
    _numbers(seconds)
    if not all(0 <= value < math.inf for value in seconds.values()) or not seconds["total"]:
        raise ValueError("seconds are not positive")
    for kind in _KINDS if variance else ():
        measured = variance.get(kind)
        if not isinstance(measured, dict) or not measured.keys() >= _OF_A_KIND:
            raise ValueError(f"the variance of {kind} batches is missing")
        _numbers(measured)
    return line


def _numbers(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if type(value) not in (int, float) or (type(value) is int and abs(value) >= _MOST):
            raise ValueError(f"{name} is {value!r:.40}")
