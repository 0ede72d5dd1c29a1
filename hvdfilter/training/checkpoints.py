"""The checkpoints of a run: written while it trains on, and the newest whole one found again.

RUN/checkpoints holds, for each, a file of what all ranks know and one or more of what is known of
each sample (`rows`), written by as many ranks, so that none has to hold all of it. A checkpoint is
whole when all its files are there and each is what its name says. Collective, but for `error`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hvdfilter.agreement.spread import parts_of
from hvdfilter.errors import InputError, on_all_ranks, warn
from hvdfilter.files import unwritable
from hvdfilter.training import checkpoint
from hvdfilter.world import World

FOLDER = "checkpoints"
KEPT = 2
# One rank writes the rows of a set up to this size; more take part in larger ones.
PART_BYTES = 1 << 28
_STATE, _WRITER = "state", "checkpoint"
DAMAGED = ".damaged"
_TAG = re.compile(r"\d{6}-\d{9}-[0-9a-f]{8}")
_NAME = re.compile(
    rf"(?P<tag>{_TAG.pattern})\.(?P<what>state|rows-(?P<part>\d+)-of-(?P<parts>\d+))"
    r"\.[0-9a-f]{32}\.safetensors"
)


class Saved(NamedTuple):
    """What a checkpoint holds for this rank: the state, on all ranks, and a run of the rows."""

    state: dict[str, Any]
    rows: dict[str, Any]


class Checkpoints:
    """Those of one run. kept: how many whole ones stay."""

    def __init__(self, run: Path, world: World, kept: int = KEPT) -> None:
        self.folder, self._world, self._kept = run / FOLDER, world, kept
        self._writing: threading.Thread | None = None
        self._parts = 0
        self.error: InputError | None = None  # of this rank's last write, as soon as it is known

    def parts(self, row_bytes: int) -> int:
        """How many ranks are to hold and write rows of so many bytes in all."""
        return max(1, min(self._world.size, -(-row_bytes // PART_BYTES)))

    def save(
        self, state: Mapping[str, Any], rows: Mapping[str, Any], parts: int, epoch: int, step: int
    ) -> None:
        """Write a checkpoint of what is now; returns once it is copied.

        state: nested plain values and tensors; rank 0's counts. rows: tensors by name, this rank's
        run of them; the first `parts` ranks hold all. Raises, on every rank, what went wrong with
        the checkpoint before.
        """
        self.settle()
        tag = f"{epoch:06d}-{step:09d}-{secrets.token_hex(4)}"
        tag = self._world.collective.broadcast_bytes(tag.encode()).decode()
        files = {}
        if self._world.rank < parts:
            rows_of = f"{tag}.rows-{self._world.rank}-of-{parts}"
            files[rows_of] = checkpoint.encode(rows)
        if self._world.rank == 0:
            files[f"{tag}.{_STATE}"] = checkpoint.encode(state)
        self._parts = parts
        # Not a daemon: an interpreter that ends by an error lets a file be finished first.
        self._writing = threading.Thread(target=self._write, args=(files,), name=_WRITER)
        self._writing.start()

    def settle(self) -> None:
        """Wait until the last checkpoint is on disk, everywhere; older ones are then dropped.

        Raises `InputError`, on every rank, where it could not be written on one.
        """
        if self._writing is None:  # on all ranks or on none
            return
        self._writing.join()
        self._writing = None
        with self._world.collective.errors_shared():
            if self.error is not None:
                raise self.error
        with self._world.collective.errors_shared():
            if self._world.rank == 0:
                self._drop()

    def newest(self, tag: str = "", reading: bool = False) -> Saved | None:
        """The newest whole one; None where nothing was saved yet.

        tag: of those whose files' names begin with it. A damaged one is passed over, with a
        warning, and renamed unless the run is only being read. Raises `InputError`, on every rank,
        where all are damaged.
        """
        collective, found = self._world.collective, []
        with collective.errors_shared():
            if self._world.rank == 0:
                found = [list(pair) for pair in self._whole() if pair[0][0].startswith(tag)]
        text = collective.broadcast_bytes(json.dumps(found).encode()).decode()
        damaged: list[str] = []
        sentence = ""
        for names, parts in json.loads(text):
            saved, wrong = self._read(names, parts)
            if saved is not None:
                self._put_aside([] if reading else damaged)
                return saved
            damaged += names
            sentence = sentence or wrong
            if self._world.rank == 0:
                warn(wrong)
        if damaged:
            raise on_all_ranks(
                f"no checkpoint in {self.folder} is whole ({sentence}): train again under another "
                "name, or delete that folder to start this run anew"
            )
        return None

    def place(self) -> tuple[int, int] | None:
        """Not collective. Epoch and step of the newest that is all there, by its files' names.

        Whether it is also sound is found out by reading it, which is `newest`.
        """
        whole = self._whole()
        if not whole:
            return None
        epoch, step = whole[0][0][0].split("-")[:2]
        return int(epoch), int(step)

    def _write(self, files: Mapping[str, tuple[dict[str, torch.Tensor], str]]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for stem, (tensors, outline) in files.items():
                checkpoint.write(self.folder, stem, tensors, outline)
        except OSError as failed:
            self.error = unwritable(self.folder, failed, "checkpoint", checkpoint.REMEDY)
        except InputError as failed:
            self.error = failed

    def _whole(self) -> list[tuple[list[str], int]]:
        """Checkpoints all of whose files are there, newest first: (names, parts), rows in order."""
        files: dict[str, dict[str, str]] = {}
        parts: dict[str, int] = {}
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        except OSError as failed:
            raise InputError(f"{self.folder} cannot be read: {failed.strerror}") from None
        for name in names:
            if match := _NAME.fullmatch(name):
                files.setdefault(match["tag"], {})[match["what"]] = name
                if match["parts"]:
                    parts[match["tag"]] = int(match["parts"])
        found = []
        for tag, of_tag in files.items():
            count = parts.get(tag, 0)
            wanted = [_STATE, *(f"rows-{part}-of-{count}" for part in range(count))]
            if count and all(what in of_tag for what in wanted):
                made = (self.folder / of_tag[_STATE]).stat().st_mtime_ns
                # Of two of one step, as after resuming, the later.
                found.append(((tag[:16], made), ([of_tag[what] for what in wanted], count)))
        return [whole for _, whole in sorted(found, reverse=True)]

    def _read(self, names: list[str], parts: int) -> tuple[Saved | None, str]:
        """What a checkpoint holds, where it is whole; else what is wrong with it."""
        collective, rank = self._world.collective, self._world.rank
        bounds = parts_of(parts, min(parts, self._world.size), self._world.size)
        data, pieces, error = b"", [], ""
        try:
            if rank == 0:
                data = checkpoint.read(self.folder / names[0])
            for name in names[1:][bounds[rank] : bounds[rank + 1]]:
                path = self.folder / name
                pieces.append(checkpoint.decode(checkpoint.read(path), path))
        except InputError as damaged:
            error = str(damaged)
        said = [bytes(part).decode() for part in collective.allgather(_bytes(error))]
        if wrong := next(filter(None, said), ""):
            return None, wrong
        data = collective.broadcast_bytes(data)
        with collective.errors_shared():
            state = checkpoint.decode(data, self.folder / names[0])
        rows = {
            key: torch.cat([piece[key] for piece in pieces])
            for key in (pieces[0] if pieces else ())
        }
        return Saved(state, rows), ""

    def _put_aside(self, names: list[str]) -> None:
        """Collective. Let damaged files, older than what will be written, no more be looked at."""
        with self._world.collective.errors_shared():
            if self._world.rank == 0:
                for name in names:
                    _rename(self.folder / name, self.folder / (name + DAMAGED))

    def _drop(self) -> None:
        """Delete all but the newest, and what a kill has left."""
        whole = self._whole()
        newest = whole[0] if whole else ([], 0)
        if newest[1] != self._parts:
            raise InputError(
                f"rank 0 does not see what {self._parts} ranks have written to {self.folder}: "
                "--runs must be on a file system that all hosts share"
            )
        kept = {name for names, _ in whole[: self._kept] for name in names}
        for name in os.listdir(self.folder):
            if name not in kept and not name.endswith(DAMAGED):
                (self.folder / name).unlink(missing_ok=True)


def let_finish() -> None:
    """Wait for files that this process is still writing, whatever became of their run."""
    for thread in threading.enumerate():
        if thread.name == _WRITER:
            thread.join()


def finished(path: Path, world: World) -> Saved:
    """Collective. The newest checkpoint of a run, or the one that `path` names.

    path: of the run's folder, or of a file of a checkpoint in it. `InputError` where there is none.
    """
    run, tag = run_of(path)
    saved = Checkpoints(run, world).newest(tag, reading=True)
    if saved is None and tag:
        raise on_all_ranks(f"there is no whole checkpoint {tag} in {run / FOLDER}")
    if saved is None:
        raise on_all_ranks(f"there is no checkpoint in {run}: the run has not finished an epoch")
    return saved


def run_of(path: Path) -> tuple[Path, str]:
    """The run folder of a run or of a file of one of its checkpoints, and that one's tag or ""."""
    if path.parent.name != FOLDER:
        return path, ""
    tag = path.name.split(".")[0]
    if not _TAG.fullmatch(tag):
        raise InputError(f"{path} is no checkpoint: name a file of {path.parent}, or the run")
    return path.parent.parent, tag


def _rename(old: Path, new: Path) -> None:
    try:
        old.rename(new)
    except OSError as failed:
        raise InputError(f"{old} cannot be renamed: {failed.strerror}") from None


def _bytes(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)
