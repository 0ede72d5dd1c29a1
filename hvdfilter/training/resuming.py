"""Whether a run that is to be resumed is the one that was meant: its options, and its name.

A requeued job gives one command for its first start and for all others, so `--resume true` starts a
run that is not there yet. It must not do so for a slip of the keyboard, and throw away what the run
of the right name has done.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hvdfilter.errors import InputError
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.run_files import read_config, read_metrics

# May change when a run is resumed (the batch of a rank, so that fewer ranks can keep the global
# batch); everything else decides what is computed.
FREE_TO_CHANGE = (
    *("resume", "runs", "name", "workers", "batch_size", "accumulate", "decoded_cache"),
    *("checkpoint_minutes", "silence_minutes", "cycle_time_ms", "fusion_threshold_mb"),
    "elastic",
)
_DEFAULTS: dict[str, Any] = {option.name: option for option in fields(TrainConfig)}


def option_of(config: Mapping[str, Any], name: str) -> Any:
    """An option of a run's configuration; its default for a run that is older than the option."""
    if name in config or name not in _DEFAULTS:
        return config.get(name)
    option = _DEFAULTS[name]
    return option.default_factory() if option.default is MISSING else option.default


def refuse_other_work(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """`InputError` where the options of a run and those it is resumed with differ."""
    for option, value in now.items():
        before = option_of(saved, option)
        if option not in FREE_TO_CHANGE and before != value:
            raise InputError(
                f"the run to resume has {option}={before} but now {option}={value}: "
                "resume with the options it was started with, or start a new run"
            )


def refuse_mistyped(runs: Path, name: str, options: Mapping[str, Any]) -> None:
    """`InputError` where there is no run `name`, but one that was most likely meant.

    That is: a near name, the same options, and epochs left to train. Names that differ in their
    numbers alone (`seed-1`, `seed-2`) are a series, not a slip.
    """
    there = {path.parent.name: path.parent for path in runs.glob("*/config.yaml")}
    for other in difflib.get_close_matches(name, there, n=3, cutoff=0.6):
        try:
            config = read_config(there[other])
            refuse_other_work(config, options)
            done, wanted = _epochs(there[other]), int(option_of(config, "epochs"))
        except (InputError, ValueError, TypeError):
            continue  # other work, or a run that cannot be read
        if _letters(other) != _letters(name) and done < wanted:
            raise InputError(
                f"there is no run {runs / name} to resume, but {there[other]} has the same options "
                f"and {done} of {wanted} epochs: did you mean --name {other}? (a new run "
                "starts without --resume)"
            )


def _epochs(run: Path) -> int:
    """How many of its epochs a run has finished."""
    return len(read_metrics(run)) if (run / "metrics.jsonl").exists() else 0


def _letters(name: str) -> str:
    return re.sub(r"\d+", "0", name)
