"""Copies that go on by themselves, and the mbarriers that tell of their end.

Here a copy is done at once, so nobody waits long; what is missing at its barrier still shows, as a
wait without end. An mbarrier counts arrivals and bytes of a phase; it lies beside the memory that
the kernel sees, which holds an opaque word.
"""

from __future__ import annotations

import numpy as np

from benchmarks.sass.accesses import (
    HINTS,
    WIDTHS,
    address32,
    address64,
    global_load,
    shared_block,
    shared_store,
    size_of,
)
from benchmarks.sass.memory import Array, Fault
from benchmarks.sass.operands import u32, u64, word
from benchmarks.sass.state import Lanes, Mbarrier, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction, Operand

U32, U64 = np.uint32, np.uint64


def key_of(m: State, lanes: Lanes, at: Array, remote: bool = False) -> list[tuple[int, int]]:
    """Block and offset of an mbarrier, for each lane."""
    blocks, offsets = shared_block(m, lanes, at, remote)
    return list(zip(blocks.tolist(), offsets.tolist(), strict=True))


def barrier(m: State, key: tuple[int, int]) -> Mbarrier:
    """The mbarrier at a place."""
    if key not in m.mbarriers:
        raise Fault("an mbarrier that was never initialised")
    return m.mbarriers[key]


@op("SYNCS", "EXCH 64 ARRIVE TRANS64 A1T0")
def syncs(i: Instruction) -> Run:
    """EXCH makes an mbarrier, ARRIVE arrives, expecting some bytes. A wait is in control.py."""
    at, value = address32(i, 1), u64(i, 2) if "EXCH" in i.modifiers else u32(i, 2)
    if i.operands[0].number >= 0 or len(i.modifiers & {"EXCH", "ARRIVE"}) != 1:
        raise i.unknown("the operands")

    def make(m: State, lanes: Lanes) -> None:
        found = np.broadcast_to(value(m, lanes), lanes.warp.shape).tolist()
        for key, bits in zip(key_of(m, lanes, at(m, lanes)), found, strict=True):
            count = (1 << 20) - (bits >> 1 & 0xFFFFF)
            m.mbarriers[key] = Mbarrier(count, count)

    def arrive(m: State, lanes: Lanes) -> None:
        found = np.broadcast_to(value(m, lanes), lanes.warp.shape).tolist()
        for key, expected in zip(key_of(m, lanes, at(m, lanes)), found, strict=True):
            barrier(m, key).arrive(1, 0 if "A1T0" in i.modifiers else expected)

    return make if "EXCH" in i.modifiers else arrive


@op("STAS", WIDTHS)
def stas(i: Instruction) -> Run:
    """A store into a block of the cluster; R: its place, R + 1: the mbarrier that is told."""
    target, size = i.operands[0], size_of(i)
    if target.kind != "mem" or not target.wide or target.number or target.uniform >= 0:
        raise i.unknown("the address")
    place, told = (word(i, Operand("R", target.base), k) for k in (0, 1))
    reads = [word(i, i.operands[1], k) for k in range(max(1, size // 4))]

    def run(m: State, lanes: Lanes) -> None:
        rows, offsets = shared_block(m, lanes, place(m, lanes), True)
        m.shared.store(rows, offsets, size, [read(m, lanes) for read in reads])
        for key in key_of(m, lanes, told(m, lanes), True):
            barrier(m, key).arrive(0, -size)

    return run


@op("UBLKCP", "S G")
def ublkcp(i: Instruction) -> Run:
    """A copy of whole lines from global to shared memory, once a warp."""
    if i.name != "UBLKCP.S.G":
        raise i.unknown("the direction")
    to, start, count = i.operands
    if to.uniform < 0 or start.uniform < 0 or to.number or start.number:
        raise i.unknown("the address")
    place, told = (word(i, Operand("UR", to.uniform), k) for k in (0, 1))
    low, high = (word(i, Operand("UR", start.uniform), k) for k in (0, 1))
    lines = word(i, count)

    def run(m: State, lanes: Lanes) -> None:
        # The first lane of each warp, for the warp.
        _, first = np.unique(lanes.warp, return_index=True)
        one = Lanes(m.thread_numbers[lanes.thread][first], lanes.warp[first])
        address = low(m, one).astype(U64) | high(m, one).astype(U64) << U64(32)
        for k in range(len(first)):
            lane = Lanes(one.thread[k : k + 1], one.warp[k : k + 1])
            size = 16 * int(lines(m, lane)[0])
            steps = np.arange(0, size, 16)
            rows, offsets = shared_block(m, lane, place(m, lane), True)
            found = m.memory.load(address[k] + steps.astype(U64), 16)
            m.shared.store(np.repeat(rows, len(steps)), offsets + steps.astype(U32), 16, found)
            for key in key_of(m, lane, told(m, lane), True):
                barrier(m, key).arrive(0, -size)

    return run


@op("LDGSTS", f"{WIDTHS} {HINTS} BYPASS ACCESS")
def ldgsts(i: Instruction) -> Run:
    """A copy of one lane from global to shared memory."""
    to, start, size = address32(i, 0), address64(i, 1), size_of(i)
    if len(i.operands) != 2:
        raise i.unknown("the operands")

    def run(m: State, lanes: Lanes) -> None:
        found = global_load(m, lanes, start(m, lanes), size)
        shared_store(m, lanes, to(m, lanes), size, found)

    return run
