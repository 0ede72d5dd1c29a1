"""The folder a run leaves: `config.yaml`, `metrics.jsonl`, `checkpoints/`.

Only rank 0 writes. A run that exists is never overwritten: an unnamed run takes the next free
number, a named one must be resumed or renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hvdfilter import files, plain_yaml
from hvdfilter.errors import InputError
from hvdfilter.training import run_files
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.names import check_name
from hvdfilter.training.run_files import read_config, read_metrics
from hvdfilter.world import World

__all__ = ["RunFolder", "read_config", "read_metrics"]

CONFIG = "config.yaml"
# May change when a run is resumed (the batch of a rank, so that fewer ranks can keep the global
# batch); everything else decides what is computed.
FREE_TO_CHANGE = (
    *("resume", "runs", "name", "workers", "batch_size", "accumulate", "decoded_cache"),
    *("checkpoint_minutes", "silence_minutes", "cycle_time_ms", "fusion_threshold_mb"),
    "elastic",
)
_DEFAULTS: dict[str, Any] = {option.name: option for option in fields(TrainConfig)}


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path, world: World) -> None:
        self.path, self._world = path, world
        self.config, self.metrics = path / CONFIG, path / "metrics.jsonl"

    @classmethod
    def open(
        cls,
        runs: Path,
        name: str | None,
        options: Mapping[str, Any],
        world: World,
        resume: bool = False,
    ) -> RunFolder:
        """Collective. Make the folder of a new run, or find that of a run to resume.

        runs: the folder that holds it. name: of the run; None makes one from `options`, the plain
        values of `config.yaml`. Raises `InputError`, on every rank, when a named run exists and is
        not resumed, when it was started with other options, or when it cannot be written.
        """
        path = b""
        with world.collective.errors_shared():
            if name is not None:
                check_name(name)
            if world.rank == 0:
                path = os.fsencode(_claim(runs, name, options, resume))
        path = world.collective.broadcast_bytes(path)
        return cls(Path(os.fsdecode(path)), world)

    def append(self, record: Mapping[str, Any]) -> None:
        """Collective. Add one line to `metrics.jsonl`; `InputError` on every rank if it cannot."""
        with self._world.collective.errors_shared():
            if self._world.rank == 0:
                files.append(self.metrics, json.dumps(record))

    def forget_after(self, epoch: int) -> None:
        """Collective. Drop the metrics of `epoch` and later, which a resumed run computes again.

        A last line that a kill cut short is dropped too; it belongs to such an epoch.
        """
        with self._world.collective.errors_shared():
            if self._world.rank == 0 and self.metrics.exists():
                text = run_files.metrics_text(self.metrics) if epoch else ""
                whole = text[: text.rfind("\n") + 1]
                records = run_files.parse(whole, self.metrics)
                kept = [json.dumps(record) + "\n" for record in records if record["epoch"] < epoch]
                files.write(self.metrics, "".join(kept))


def option_of(config: Mapping[str, Any], name: str) -> Any:
    """An option of a run's configuration; its default for a run that is older than the option."""
    if name in config or name not in _DEFAULTS:
        return config.get(name)
    option = _DEFAULTS[name]
    return option.default_factory() if option.default is MISSING else option.default


def _claim(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> Path:
    text = plain_yaml.dump(options, f"run {name}")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        # A folder without a configuration was cut off as it was made: it is taken over.
        path = runs / (name or "")
        if resume and (path / CONFIG).exists():
            _same_run(read_config(path), options)
            return path
        path = _create(runs, name, options, resume)
    except OSError as failed:
        raise InputError(
            f"the run folder under {runs} cannot be written ({failed.strerror}): choose "
            "another place (--runs DIR)"
        ) from None
    try:
        files.write(path / CONFIG, text)
    except InputError:
        with suppress(OSError):  # so that the same command can be given again
            path.rmdir()
        raise
    return path


def _create(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> Path:
    if name is not None:
        try:
            (runs / name).mkdir(exist_ok=resume)
        except FileExistsError:
            if not (runs / name).is_dir():
                raise InputError(f"{runs / name} is a file: choose another name") from None
            raise InputError(
                f"run {runs / name} exists: continue it with --resume true (in a script "
                "resume=True), or choose another name"
            ) from None
        return runs / name
    data = options["data"].split(":")[0]
    stem = f"{data}-{options['model']}-{options['policy']}".replace(":", "-").replace("/", "-")
    number = 1
    while True:
        path = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def _same_run(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for option, value in now.items():
        before = option_of(saved, option)
        if option not in FREE_TO_CHANGE and before != value:
            raise InputError(
                f"the run to resume has {option}={before} but now {option}={value}: "
                "resume with the options it was started with, or start a new run"
            )
