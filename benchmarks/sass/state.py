"""What a running machine is made of: registers, predicates, barriers, memories, of some blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.sass.memory import SHARED_WINDOW, Array, Constants, Fault, Global, Rows
from benchmarks.sass.text import Instruction

REGISTERS, UNIFORM, PREDICATES, BARRIERS = 256, 256, 8, 16
WARP = 32


class Lanes(NamedTuple):
    """Who executes: the threads, or None in the uniform datapath; and the warp of each."""

    thread: Any  # an array or a slice
    warp: Any


@dataclass
class Shape:
    """How a kernel was launched."""

    grid: int
    threads: int
    cluster: int = 1
    shared_bytes: int = 0  # with what the kernel declares
    local_bytes: int = 0


@dataclass
class Mbarrier:
    """Arrivals and bytes that the present phase still waits for."""

    count: int  # arrivals of each phase
    arrivals: int
    bytes: int = 0
    phase: int = 0

    def arrive(self, times: int, more: int) -> None:
        """Arrivals, and bytes to come, or come where negative."""
        self.arrivals -= times
        self.bytes += more
        if self.arrivals < 0:
            raise Fault("more arrivals at an mbarrier than it counts")
        if self.arrivals == 0 and self.bytes == 0:
            self.phase, self.arrivals = self.phase + 1, self.count


@dataclass
class Parked:
    """Threads that wait at their instruction, and go on at `then`."""

    kind: str
    number: int
    at: int
    then: int
    threads: Array
    over: Callable[[], Array] | None = None  # of an mbarrier: for which threads its phase is over


class State:
    """The blocks from `first_block` on, before their first instruction."""

    def __init__(
        self,
        shape: Shape,
        first_block: int,
        blocks: int,
        constants: Constants,
        memory: Global,
        index: dict[int, int],
    ) -> None:
        self.shape, self.constants, self.memory, self.index = shape, constants, memory, index
        self.first_block, self.blocks, self.cluster = first_block, blocks, shape.cluster
        slots = -(-shape.threads // WARP) * WARP
        count = blocks * slots
        self.thread_numbers = np.arange(count)
        self.block = self.thread_numbers // slots
        self.thread = self.thread_numbers % slots
        self.alive = self.thread < shape.threads
        # What nobody wrote is no number that a result could be made of by luck.
        self.R = np.full((REGISTERS, count), 0xFFF0DEAD, np.uint32)
        self.P = np.zeros((PREDICATES, count), bool)
        self.UR = np.full((UNIFORM, count // WARP), 0xFFF0DEAD, np.uint32)
        self.UP = np.zeros((PREDICATES, count // WARP), bool)
        # Which BSSY each thread came through last, by its barrier: those of one meet at the BSYNC.
        self.barriers = np.zeros((BARRIERS, count), np.int64)
        self.meetings = 0
        self.arrived = np.zeros(count, np.int64)  # at the barrier of the cluster, so often
        self.waited = np.zeros(count, np.int64)
        self.shared = Rows("shared", blocks, shape.shared_bytes)
        self.local = Rows("local", count, shape.local_bytes)
        self.parked: list[Parked] = []
        self.mbarriers: dict[tuple[int, int], Mbarrier] = {}  # by block and offset

    def special(self, i: Instruction, name: str) -> Array:
        """A special register of every thread."""
        like = self.thread_numbers
        block = self.first_block + self.block
        values: dict[str, Array | int] = {
            "SR_TID.X": self.thread,
            "SR_TID.Y": 0,
            "SR_TID.Z": 0,
            "SR_CTAID.X": block,
            "SR_CTAID.Y": 0,
            "SR_CTAID.Z": 0,
            "SR_LANEID": self.thread % WARP,
            "SR_NTID.X": self.shape.threads,
            "SR_NCTAID.X": self.shape.grid,
            "SR_CgaCtaId": block % self.cluster,
            "SR_CgaSize": self.cluster,
            "SR_CLUSTERID.X": block // self.cluster,
            "SR_SWINHI": SHARED_WINDOW,
            "SRZ": 0,
        }
        if name not in values:
            raise i.unknown(f"the special register {name}")
        return np.broadcast_to(np.asarray(values[name]), like.shape).astype(np.uint32)
