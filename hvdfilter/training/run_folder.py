"""The folder a run leaves: `config.yaml`, `metrics.jsonl`, `checkpoints/`.

Only rank 0 writes. A run that exists is never overwritten: an unnamed run takes the next free
number, a named one must be resumed or renamed.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hvdfilter import files, plain_yaml
from hvdfilter.errors import InputError
from hvdfilter.training import run_files
from hvdfilter.training.names import check_name
from hvdfilter.training.resuming import option_of, refuse_mistyped, refuse_other_work
from hvdfilter.training.run_files import read_config, read_metrics
from hvdfilter.world import World

__all__ = ["RunFolder", "option_of", "read_config", "read_metrics"]

CONFIG = "config.yaml"


class RunFolder:
    """Paths and files of one run. existed: whether there was something of it to go on from."""

    def __init__(self, path: Path, world: World, existed: bool = False) -> None:
        self.path, self._world, self.existed = path, world, existed
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
        not resumed, when it was started with other options, when its name is most likely a slip
        of one that is to be resumed, or when it cannot be written.
        """
        return cls._find(_claim, runs, name, options, world, resume)

    @classmethod
    def look(
        cls,
        runs: Path,
        name: str | None,
        options: Mapping[str, Any],
        world: World,
        resume: bool = False,
    ) -> RunFolder:
        """Collective. What `open` would return or raise; nothing is made or written."""
        return cls._find(_look, runs, name, options, world, resume)

    @classmethod
    def _find(
        cls,
        by: Callable[[Path, str | None, Mapping[str, Any], bool], _Found],
        runs: Path,
        name: str | None,
        options: Mapping[str, Any],
        world: World,
        resume: bool,
    ) -> RunFolder:
        said = b""
        with world.collective.errors_shared():
            if name is not None:
                check_name(name)
            if world.rank == 0:
                found = by(runs, name, options, resume)
                said = (b"1" if found.existed else b"0") + os.fsencode(found.path)
        said = world.collective.broadcast_bytes(said)
        return cls(Path(os.fsdecode(said[1:])), world, existed=said[:1] == b"1")

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


class _Found(NamedTuple):
    path: Path
    existed: bool


def _claim(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> _Found:
    text = plain_yaml.dump(options, f"run {name}")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        if _goes_on(runs, name, options, resume):
            return _Found(runs / (name or ""), True)
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
    return _Found(path, False)


def _look(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> _Found:
    plain_yaml.dump(options, f"run {name}")
    if _goes_on(runs, name, options, resume):
        return _Found(runs / (name or ""), True)
    path = next(one for one in _places(runs, name, options) if name or not os.path.lexists(one))
    if os.path.lexists(path) and not (resume and path.is_dir()):
        raise _taken(path)
    above = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"the run folder under {runs} cannot be written: choose another place (--runs DIR)"
        )
    return _Found(path, False)


def _goes_on(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> bool:
    """Whether there is a run to resume, which has to be the one that was meant."""
    # A folder without a configuration was cut off as it was made: it is taken over.
    if not resume or name is None:
        return False
    if (runs / name / CONFIG).exists():
        refuse_other_work(read_config(runs / name), options)
        return True
    refuse_mistyped(runs, name, options)
    return False


def _create(runs: Path, name: str | None, options: Mapping[str, Any], resume: bool) -> Path:
    for path in _places(runs, name, options):
        try:
            path.mkdir(exist_ok=resume and name is not None)
            return path
        except FileExistsError:
            if name is not None:
                raise _taken(path) from None
    raise AssertionError("there is always another number")


def _places(runs: Path, name: str | None, options: Mapping[str, Any]) -> Iterator[Path]:
    """Where the run may lie: under its name, or without one under the first number that is free."""
    if name is not None:
        yield runs / name
        return
    data = options["data"].split(":")[0]
    stem = f"{data}-{options['model']}-{options['policy']}".replace(":", "-").replace("/", "-")
    yield runs / stem
    yield from (runs / f"{stem}-{number}" for number in itertools.count(2))


def _taken(path: Path) -> InputError:
    if not path.is_dir():
        return InputError(f"{path} is a file: choose another name")
    return InputError(
        f"run {path} exists: continue it with --resume true (in a script resume=True), or choose "
        "another name"
    )
