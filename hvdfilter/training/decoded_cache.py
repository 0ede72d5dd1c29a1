"""Makes a node's decoded cache, its ranks sharing the work, or checks the one that is there.

Collective over all ranks of the job, in rounds that each take as long as a block of pixels: so an
error of one rank is everybody's within a round, nobody seems silent, and a host that waits for
another job to make the same file keeps no host of its own job from working. Ranks belong together
that see one folder on one host. One of them, the leader, holds a lock while they make the file;
the lock ends with its process, and what a killed job left is made anew by the next one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import IntEnum
from pathlib import Path

import numpy as np

from hvdfilter import files
from hvdfilter.data import Images
from hvdfilter.data.decoded import (
    CHUNK,
    WHAT,
    DecodedImages,
    Layout,
    identity_of,
    intact,
    layout_of,
    make,
    reserve,
    wrong,
)
from hvdfilter.data.encoded import EncodedImages
from hvdfilter.data.store import locked
from hvdfilter.errors import warn
from hvdfilter.world import World

_PAUSE = 0.05  # seconds between two looks at what another job makes


class _State(IntEnum):
    """What the ranks of one folder are at; all of them know it."""

    WAITING = 0  # for another job that makes the file
    CHECKING = 1
    MAKING = 2
    FINISHING = 3  # all is written: the leader puts it in its place
    DONE = 4


def decoded(
    images: Images, folder: Path, world: World, beat: Callable[[str], None] = lambda where: None
) -> Images:
    """Collective. `images` from a file in `folder` that holds them decoded, made if need be.

    Sets that lie in memory, and others that say not what their samples are made of, are returned as
    they are. beat: told of every block. Raises `InputError` on every rank for a damaged image, a
    full disk, or a folder that cannot be used.
    """
    if not isinstance(images, EncodedImages) or images.identity is None:
        return images
    collective = world.collective
    with collective.errors_shared():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place = os.stat(folder)
        except OSError as failed:
            raise files.unwritable(folder, failed, WHAT) from failed
        host = f"{os.uname().nodename} {place.st_dev} {place.st_ino}"
        chunks = range(world.rank, -(-len(images) // CHUNK), world.size)
        mine = b"".join(identity_of(images, chunk) for chunk in chunks)
    layout = layout_of(images, _in_order(collective.allgather(np.frombuffer(mine, np.uint8))))
    seat = np.frombuffer(hashlib.sha256(host.encode()).digest()[:8], np.int64)
    seats = [int(other[0]) for other in collective.allgather(seat)]
    team = [rank for rank, other in enumerate(seats) if other == seats[world.rank]]
    with ExitStack() as stack:
        turn = _Turn(images, folder, layout, team, world.rank, stack)
        while True:
            with collective.errors_shared():
                turn.work()
            said = np.array(turn.said(), np.int64)
            rows = collective.allgather_flat(said, [said.size] * world.size)
            rows = rows.reshape(world.size, said.size)
            if (rows[:, 0] == _State.DONE).all():
                break
            turn.advance(rows[team])
            beat(f"{WHAT} in {folder}, {turn.state.name.lower()}, block {turn.blocks_done}")
    with collective.errors_shared():
        return DecodedImages(turn.path, layout, images.labels, images.description)


def _in_order(parts: list[np.ndarray]) -> bytes:
    """The digests of all chunks, which were dealt out one to a rank in turn."""
    rows = [part.reshape(-1, 32) for part in parts]
    return b"".join(
        part[turn].tobytes()
        for turn in range(max(len(part) for part in rows))
        for part in rows
        if turn < len(part)
    )


class _Turn:
    """One rank's part in the file of its host."""

    def __init__(
        self,
        images: EncodedImages,
        folder: Path,
        layout: Layout,
        team: list[int],
        rank: int,
        stack: ExitStack,
    ) -> None:
        self.path = folder / f"{layout.key[:32]}.pixels"
        self._images, self._layout, self._stack = images, layout, stack
        self._size, self._place, self._first = len(team), team.index(rank), rank == 0
        self.state, self.blocks_done = _State.WAITING, 0
        self._found, self._writer = _State.WAITING, 0  # what the leader finds out while it waits
        self._damaged, self._remake = False, False

    def said(self) -> tuple[int, ...]:
        """What the other ranks must hear after each round."""
        return int(self.state), int(self._found), self._writer, int(self._damaged)

    def work(self) -> None:
        """This rank's part of a round; its errors are for the caller to share."""
        block = self.blocks_done + self._place
        if self.state is _State.WAITING and self._place == 0:
            self._found = self._open()
        elif self.state is _State.CHECKING and block < self._layout.blocks:
            with files.opened(self.path) as file:
                self._damaged = not intact(file.fileno(), self._layout, block)
        elif self.state is _State.MAKING and block < self._layout.blocks:
            make(self._draft, self._layout, self._images, block)
        elif self.state is _State.FINISHING and self._place == 0:
            self._finish()

    def advance(self, rows: np.ndarray) -> None:
        """What comes next. rows: int64 [n, 4], what the ranks of this folder said; leader first."""
        if self.state is _State.WAITING:
            self.state, self.blocks_done = _State(int(rows[0, 1])), 0
            self._writer = int(rows[0, 2])
            return
        self.blocks_done += self._size
        if self.state is _State.CHECKING and rows[:, 3].any():
            self.state, self._damaged, self._remake = _State.WAITING, False, True
            if self._place == 0:
                warn(f"{self.path} is damaged, and is made again")
        elif self.state is _State.FINISHING:
            self.state = _State.DONE
        elif self.blocks_done >= self._layout.blocks:
            making = self.state is _State.MAKING
            self.state = _State.FINISHING if making else _State.DONE

    @property
    def _draft(self) -> Path:
        """Written by one team alone: it holds the lock, or else its leader's number is in here."""
        writer = f".{self._writer}" if self._writer else ""
        return self.path.with_suffix(f".{os.uname().nodename}{writer}.writing")

    def _open(self) -> _State:
        """Leader: find the file, or begin to make it, or wait for who does."""
        if self._there():
            return _State.CHECKING
        try:
            lock = self._stack.enter_context(open(self.path.with_suffix(".lock"), "wb"))
        except OSError as failed:
            raise files.unwritable(self.path, failed, WHAT) from failed
        alone = locked(lock, wait=False)
        if alone is None:
            lock.close()
            time.sleep(_PAUSE)
            return _State.WAITING
        if self._there():  # since the first look
            lock.close()
            return _State.CHECKING
        # Of jobs that were killed here; on other hosts the lock may hold nobody back.
        drafts = f"{self.path.stem}.{os.uname().nodename}.*writing"
        for left in self.path.parent.glob(drafts) if alone else ():
            with suppress(OSError):
                left.unlink()
        self._writer = 0 if alone else os.getpid()
        self._stack.callback(self._draft.unlink, missing_ok=True)
        if self._first:
            count, size = self._layout.count, self._layout.size / 1e9
            said = f"decoding {count} images into {self.path} ({size:.1f} GB), once for this node"
            print(f"hvdfilter: {said}", file=sys.stderr, flush=True)
        reserve(self._draft, self._layout)
        return _State.MAKING

    def _there(self) -> bool:
        """Whether the file is there, and nobody has found it damaged."""
        return not self._remake and self.path.is_file() and wrong(self.path, self._layout) is None

    def _finish(self) -> None:
        try:
            with open(self._draft, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(self._draft, self.path)
        except OSError as failed:
            raise files.unwritable(self.path, failed, WHAT) from failed
