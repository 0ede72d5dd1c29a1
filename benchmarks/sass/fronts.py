"""The code made ready to run, and the groups of threads that stand somewhere in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.sass.memory import Array
from benchmarks.sass.operands import Read, predicate
from benchmarks.sass.state import Lanes
from benchmarks.sass.table import Run, bind
from benchmarks.sass.text import Function


@dataclass
class Code:
    """A function made ready: what runs each instruction, and where straight pieces end."""

    function: Function
    runs: dict[int, Run] = field(default_factory=dict)
    guards: dict[int, Read | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = self.function.index()
        self.instructions = self.function.instructions
        self.leaders = {
            self.index[each.operands[-1].number]
            for each in self.instructions
            if each.opcode in ("BRA", "CALL", "BSSY") and each.operands[-1].number in self.index
        }

    def run(self, at: int) -> Run:
        """What executes instruction `at`, made when it is first reached."""
        if at not in self.runs:
            self.runs[at] = bind(self.instructions[at])
        return self.runs[at]

    def guard(self, at: int) -> Read | None:
        """What reads the guard of instruction `at`, or None."""
        if at not in self.guards:
            i = self.instructions[at]
            self.guards[at] = None if i.guard is None else predicate(i, i.guard)
        return self.guards[at]


class Front:
    """Groups of different warps at one instruction."""

    __slots__ = ("at", "lanes", "threads", "uniform", "warps")

    def __init__(self, at: int, threads: Array, everyone: int) -> None:
        self.at, self.threads = at, threads
        of_lane = threads >> 5
        whole = len(threads) == everyone
        self.lanes = Lanes(slice(None) if whole else threads, of_lane)
        self.warps = np.unique(of_lane)
        self.uniform = Lanes(None, self.warps)

    def some(self, chosen: Array) -> Lanes:
        """The lanes where `chosen` holds."""
        if chosen.all():
            return self.lanes
        return Lanes(self.threads[chosen], self.lanes.warp[chosen])
