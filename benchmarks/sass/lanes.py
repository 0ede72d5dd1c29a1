"""Special registers, shuffles, and what only orders memory."""

from __future__ import annotations

import numpy as np

from benchmarks.sass.memory import Fault
from benchmarks.sass.operands import u32, write32, write64, write_predicate
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

U32, U64 = np.uint32, np.uint64


@op("S2R")
@op("S2UR")
@op("CS2R", "32")
def s2r(i: Instruction) -> Run:
    """A special register, by its name."""
    name = i.operands[1].name
    if i.opcode == "CS2R" and "32" not in i.modifiers:
        if name != "SRZ":
            raise i.unknown(f"the special register {name}")
        put64, zero = write64(i, 0), np.zeros(1, U64)
        return lambda m, lanes: put64(m, lanes, zero)
    put = write32(i, 0)
    if i.opcode != "S2UR":
        return lambda m, lanes: put(m, lanes, m.special(i, name)[lanes.thread])
    # Once a warp: what its first thread would read.
    return lambda m, lanes: put(m, lanes, m.special(i, name).reshape(-1, 32)[lanes.warp, 0])


@op("SHFL", "BFLY IDX UP DOWN")
def shfl(i: Instruction) -> Run:
    """A value of another lane of the warp; the last operand holds segment and bound."""
    a, b, c, put = u32(i, 2), u32(i, 3), u32(i, 4), write32(i, 1)
    flag = write_predicate(i, 0)
    (mode,) = i.modifiers

    def run(m: State, lanes: Lanes) -> None:
        threads = m.thread_numbers[lanes.thread]
        lane = (threads & 31).astype(np.int64)
        other, limits = b(m, lanes).astype(np.int64) & 31, c(m, lanes).astype(np.int64)
        bound, segment = limits & 31, limits >> 8 & 31
        highest = (lane & segment) | (bound & ~segment)
        if mode == "BFLY":
            source = lane ^ other
        elif mode == "IDX":
            source = (lane & segment) | (other & ~segment)
        else:
            source = lane - other if mode == "UP" else lane + other
        valid = source >= highest if mode == "UP" else source <= highest
        source = np.where(valid, source, lane)
        source_thread = threads - (threads & 31) + source
        there = np.zeros(len(m.thread_numbers), bool)
        there[threads] = True
        if not there[source_thread].all():
            raise Fault("a value of a lane that does not take part")
        whole = np.zeros(len(m.thread_numbers), U32)
        whole[threads] = a(m, lanes)
        put(m, lanes, whole[source_thread])
        flag(m, lanes, valid)

    return run


def nothing(i: Instruction) -> Run:
    """Orders memory or hints at it: one thread's accesses are in order here anyway."""
    return lambda m, lanes: None


for name, modifiers in {
    "NOP": "",
    "YIELD": "",
    "ERRBAR": "",
    "CGAERRBAR": "",
    "MEMBAR": "ALL SC GPU SYS CTA VC CLUSTER",
    "FENCE": "VIEW ASYNC S G T",
    "CCTL": "IVALL PF1 PF2 E",
    "DEPBAR": "LE",
    "LDGDEPBAR": "",
    "ACQBULK": "",
    "PREEXIT": "",
}.items():
    op(name, modifiers)(nothing)
