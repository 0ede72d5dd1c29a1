"""The command that repeats a run: the options of its `config.yaml` that are not as by default."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hvdfilter.errors import InputError
from hvdfilter.report.page.groups import SUBJECT, Run
from hvdfilter.training.config import RATES, TrainConfig
from hvdfilter.training.run_folder import read_config

# Of the run itself, not of what it computes: a repetition is a run of its own.
_OWN = ("name", "resume", "elastic", "runs")


def command(run: Run) -> tuple[str, str]:
    """What to type, and a sentence about it; no command for a script's run, only the sentence.

    Either may be empty. Options are written as TrainConfig names them; a run's seed is among them.
    """
    config, action, said = run.config, "train", ""
    if "runs" not in config:
        return "", "A script of yours recorded this run: run it again with this configuration."
    subject = (config.get("policy_options") or {}).get(SUBJECT)
    if subject is not None:
        try:
            config = read_config(run.folder.parent / Path(str(subject)).name)
        except InputError:
            return "", f"It hides as many samples as the run {subject}, which is not beside it."
        action, said = "compare", "It trains this run beside the two that it is compared with."
    words = ["hvdfilter", action, *_options(config)]
    if run.summary.ranks > 1:
        words = ["mpirun", "--bind-to", "none", "-np", str(run.summary.ranks), *words]
    return shlex.join(words), said


def _options(config: Mapping[str, Any]) -> list[str]:
    usual = TrainConfig().plain()
    # A rate that is the optimiser's own need not be said.
    usual["lr"] = RATES.get(str(config.get("optimizer")), usual["lr"])
    words: list[str] = []
    for name, value in config.items():
        if name not in usual or name in _OWN or value == usual[name]:
            continue
        if isinstance(value, Mapping):
            for option in value:
                words += [f"--{name}.{option}", _word(value[option])]
        else:
            words += [f"--{name}", _word(value)]
    return words


def _word(value: Any) -> str:
    """A value as the command line reads it: YAML, so text that looks like a number is quoted."""
    if isinstance(value, str):
        try:
            plain = yaml.safe_load(value) == value
        except yaml.YAMLError:
            plain = False
        return value if plain else json.dumps(value)
    return json.dumps(value)
