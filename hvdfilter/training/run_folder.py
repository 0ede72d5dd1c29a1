"""The folder a run leaves: `config.yaml`, `metrics.jsonl`, `checkpoint.safetensors`.

Only rank 0 writes. A run that exists is never overwritten: an unnamed run takes the next free
number, a named one must be resumed or renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hvdfilter.errors import InputError
from hvdfilter.world import World

# May change when a run is resumed (the batch of a rank, so that fewer ranks can keep the global
# batch); everything else decides what is computed.
FREE_TO_CHANGE = ("resume", "runs", "name", "workers", "batch_size")
# Options that configurations of older runs lack, with what those runs did.
NEWER = {"batch_growth": 1, "optimizer": "sgd"}


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path, world: World) -> None:
        self.path, self._world = path, world
        self.config, self.metrics = path / "config.yaml", path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.safetensors"

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
            if world.rank == 0:
                path = str(_claim(runs, name, options, resume)).encode()
        path = world.collective.broadcast_bytes(path)
        return cls(Path(path.decode()), world)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line to `metrics.jsonl`."""
        if self._world.rank == 0:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(record) + "\n")

    def forget_after(self, epoch: int) -> None:
        """Collective. Drop the metrics of `epoch` and later, which a resumed run computes again.

        A last line that a kill cut short is dropped too; it belongs to such an epoch.
        """
        with self._world.collective.errors_shared():
            if self._world.rank == 0 and self.metrics.exists():
                text = self.metrics.read_text()
                whole = text[: text.rfind("\n") + 1]
                records = _parse(whole, self.metrics)
                aside = self.metrics.with_suffix(".writing")
                kept = [json.dumps(record) + "\n" for record in records if record["epoch"] < epoch]
                aside.write_text("".join(kept))
                os.replace(aside, self.metrics)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run, oldest first; `InputError` when there are none to read."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{run} is not a run folder: it has no metrics.jsonl")
    return _parse(path.read_text(), path)


def _parse(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError as broken:
        raise InputError(f"{path} is damaged: {broken}") from None


def read_config(run: Path) -> dict[str, Any]:
    """The configuration a run was started with."""
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run} is not a run folder: it has no config.yaml")
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def option_of(config: Mapping[str, Any], name: str) -> Any:
    """An option of a run's configuration; what a run did that is older than the option."""
    return config.get(name, NEWER.get(name))


def _claim(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> Path:
    try:
        text = yaml.safe_dump(dict(options), sort_keys=False)
    except yaml.YAMLError as odd:
        raise InputError(f"an option of run {name} is no plain value: {odd}") from None
    try:
        runs.mkdir(parents=True, exist_ok=True)
        # A folder without a configuration was cut off as it was made: it is taken over.
        path = runs / (name or "")
        if resume and (path / "config.yaml").exists():
            _same_run(read_config(path), options)
            return path
        path = _create(runs, name, options, resume)
        (path / "config.yaml").write_text(text)
        return path
    except OSError as failed:
        raise InputError(
            f"the run folder under {runs} cannot be written ({failed.strerror}): choose "
            "another place (--runs DIR)"
        ) from None


def _create(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> Path:
    if name is not None:
        try:
            (runs / name).mkdir(exist_ok=resume)
        except FileExistsError:
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
