"""The machine: some clusters of blocks, all their threads at once.

Threads of a warp that stand at the same instruction and came there together are a group, which is
what the hardware issues an instruction for. Groups of different warps at the same instruction form
a front, and a front executes as one numpy operation. A group parts at a branch that its threads
take differently, and only a BSYNC or WARPSYNC joins what has parted, as on the hardware; so the
number of groups that execute an instruction is the number of warp instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.sass import (
    accesses,
    atomics,
    bits,
    comparisons,
    conversions,
    doubles,
    integers,
    lanes,
    transfers,
    votes,
)
from benchmarks.sass.control import CONTROL, release
from benchmarks.sass.fronts import Code, Front
from benchmarks.sass.memory import Array, Constants, Fault, Global
from benchmarks.sass.state import WARP, Lanes, Shape, State
from benchmarks.sass.table import is_uniform
from benchmarks.sass.text import Instruction

OPERATIONS = [accesses, atomics, bits, comparisons, conversions, doubles, integers, lanes]
OPERATIONS += [transfers, votes]


class Machine(State):
    """Some blocks, and what runs them to their end."""

    def __init__(
        self,
        code: Code,
        shape: Shape,
        first_block: int,
        blocks: int,
        constants: Constants,
        memory: Global,
    ) -> None:
        super().__init__(shape, first_block, blocks, constants, memory, code.index)
        self.code = code
        self.counts = np.zeros(len(code.instructions), np.int64)
        # Filled with what the first warp executes, and whether any lane took part.
        self.watch: list[tuple[int, bool]] | None = None

    def run(self) -> None:
        """All blocks to their end."""
        everyone = len(self.thread_numbers)
        ready = [Front(0, self.thread_numbers[self.alive], everyone)]
        with np.errstate(all="ignore"):
            while ready or self.parked:
                if not ready:
                    ready = [Front(at, who, everyone) for at, who in release(self)]
                    if not ready:
                        raise Fault(self.stuck())
                    continue
                front, ready = self.lowest(ready, everyone)
                ready += [Front(at, who, everyone) for at, who in self.step(front)]

    def lowest(self, ready: list[Front], everyone: int) -> tuple[Front, list[Front]]:
        """The fronts at the lowest address as one, unless two have a warp in common; the others."""
        at = min(front.at for front in ready)
        chosen: list[Front] = []
        rest: list[Front] = []
        taken = np.zeros(everyone // WARP, bool)
        for front in ready:
            if front.at == at and not taken[front.warps].any():
                taken[front.warps] = True
                chosen.append(front)
            else:
                rest.append(front)
        if len(chosen) == 1:
            return chosen[0], rest
        joined = np.sort(np.concatenate([front.threads for front in chosen]))
        return Front(at, joined, everyone), rest

    def step(self, front: Front) -> list[tuple[int, Array]]:
        """A straight piece of code; where its threads stand behind it."""
        at = front.at
        while True:
            i = self.code.instructions[at]
            self.counts[at] += len(front.warps)
            if i.opcode in CONTROL:
                chosen = self.chosen(front, at)
                self.tell(at, front, chosen)
                return CONTROL[i.opcode](self, i, at, front, chosen)
            uniform = is_uniform(i.opcode)
            read = self.code.guard(at)
            lanes: Lanes | None = front.uniform if uniform else front.lanes
            if read is not None and lanes is not None:
                holds = np.broadcast_to(read(self, lanes), lanes.warp.shape)
                if not holds.any():
                    lanes = None
                elif uniform:
                    lanes = Lanes(None, lanes.warp[holds])
                else:
                    lanes = front.some(holds)
            if lanes is not None:
                self.execute(at, i, lanes)
            self.tell(at, front, lanes is not None)
            at += 1
            if at in self.code.leaders or at >= len(self.code.instructions):
                return [(at, front.threads)]

    def execute(self, at: int, i: Instruction, lanes: Lanes) -> None:
        """One instruction for some lanes; a fault tells where it was."""
        try:
            self.code.run(at)(self, lanes)
        except Fault as fault:
            name = self.code.function.name
            raise Fault(f"{fault} (`{i.text}` at {i.address:#x} of {name})") from None

    def chosen(self, front: Front, at: int) -> Array:
        """Where the guard of an instruction holds."""
        read = self.code.guard(at)
        holds = np.ones(1, bool) if read is None else read(self, front.lanes)
        return np.broadcast_to(holds, front.threads.shape)

    def tell(self, at: int, front: Front, executed: Any) -> None:
        """Note an instruction of the first warp."""
        if self.watch is not None and front.warps[0] == 0:
            self.watch.append((at, bool(np.any(executed))))

    def stuck(self) -> str:
        """Which instructions are waited at, for ever."""
        code = self.code
        places = sorted({code.instructions[each.at].text for each in self.parked})
        return f"{code.function.name}: some threads never come to {', '.join(places)}"
