"""What the lanes of a group find out together, and counts of bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.sass.memory import Array
from benchmarks.sass.operands import layout, predicate, u32, write32, write_predicate
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

U32 = np.uint32


@op("VOTE", "ALL ANY EQ")
@op("VOTEU", "ALL ANY EQ")
def vote(i: Instruction) -> Run:
    """Whether all or any lanes of the group hold a predicate, and their bits."""
    shape = layout(i, 0)
    register = next((k for k, each in enumerate(i.operands) if each.kind in ("R", "UR")), None)
    flags = [k for k, each in enumerate(i.operands) if each.kind in ("P", "UP")]
    source = predicate(i, i.operands[flags[-1]])
    uniform = i.opcode == "VOTEU"
    if len(flags) > 2 or shape.sources not in ((), (0,)) or "EQ" in i.modifiers:
        raise i.unknown("the operands")

    def run(m: State, lanes: Lanes) -> None:
        count = len(m.UR[0])
        holds = np.broadcast_to(source(m, lanes), lanes.warp.shape)
        threads = m.thread_numbers[lanes.thread]
        bits = np.zeros(count, np.uint32)
        np.bitwise_or.at(bits, lanes.warp, holds.astype(U32) << (threads & 31).astype(U32))
        there = np.zeros(count, np.uint32)
        np.bitwise_or.at(there, lanes.warp, U32(1) << (threads & 31).astype(U32))
        flag = bits == there if "ALL" in i.modifiers else bits != 0
        warps = np.unique(lanes.warp) if uniform else lanes.warp
        if len(flags) == 2 and i.operands[flags[0]].number >= 0:
            at = i.operands[flags[0]].number
            if uniform:
                m.UP[at, warps] = flag[warps]
            else:
                m.P[at, lanes.thread] = flag[warps]
        if register is not None and i.operands[register].number >= 0:
            if uniform:
                m.UR[i.operands[register].number, warps] = bits[warps]
            else:
                m.R[i.operands[register].number, lanes.thread] = bits[warps]

    return run


REDUCTIONS: dict[str, Any] = {
    "SUM": np.add,
    "MIN": np.minimum,
    "MAX": np.maximum,
    "OR": np.bitwise_or,
    "AND": np.bitwise_and,
    "XOR": np.bitwise_xor,
}


@op("REDUX", "SUM MIN MAX OR AND XOR S32 U32")
@op("CREDUX", "SUM MIN MAX OR AND XOR S32 U32")
def redux(i: Instruction) -> Run:
    """A sum, extreme or logic of all lanes of the group, into a register of the warp."""
    (name,) = i.modifiers & set(REDUCTIONS)
    a, at = u32(i, 1), i.operands[0].number
    kind = np.int32 if "S32" in i.modifiers else U32
    if i.operands[0].kind != "UR":
        raise i.unknown("the operands")

    def run(m: State, lanes: Lanes) -> None:
        values = np.broadcast_to(a(m, lanes), lanes.warp.shape).view(kind)
        warps, first = np.unique(lanes.warp, return_index=True)
        m.UR[at, warps] = REDUCTIONS[name].reduceat(values, first, dtype=kind).view(U32)

    return run


@op("MATCH", "ANY")
def match(i: Instruction) -> Run:
    """The lanes of the group that hold the same number."""
    a, put = u32(i, 1), write32(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        values = np.broadcast_to(a(m, lanes), lanes.warp.shape)
        bit = U32(1) << (m.thread_numbers[lanes.thread] & 31).astype(U32)
        same = np.stack([lanes.warp.astype(np.int64), values.astype(np.int64)])
        _, group = np.unique(same, axis=1, return_inverse=True)
        masks = np.zeros(group.max() + 1, U32)
        np.bitwise_or.at(masks, group.reshape(-1), bit)
        put(m, lanes, masks[group.reshape(-1)])

    return run


@op("ELECT")
def elect(i: Instruction) -> Run:
    """True in the first lane of the group."""
    flag = write_predicate(i, 0)
    if i.operands[1].number >= 0 or i.operands[2].number >= 0:
        raise i.unknown("the operands")

    def run(m: State, lanes: Lanes) -> None:
        first = np.zeros(len(lanes.warp), bool)
        first[np.unique(lanes.warp, return_index=True)[1]] = True
        flag(m, lanes, first)

    return run


def bit_count(x: Array) -> Array:
    """Bits that are set."""
    return np.unpackbits(np.ascontiguousarray(x).view(np.uint8)).reshape(-1, 32).sum(1).astype(U32)


@op("POPC")
def popc(i: Instruction) -> Run:
    a, put = u32(i, 1), write32(i, 0)
    return lambda m, lanes: put(m, lanes, bit_count(a(m, lanes)))


@op("BREV")
def brev(i: Instruction) -> Run:
    """The bits from the other end."""
    a, put = u32(i, 1), write32(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        x = a(m, lanes)
        turned = [(x >> U32(k) & U32(1)) << U32(31 - k) for k in range(32)]
        put(m, lanes, np.bitwise_or.reduce(turned))

    return run


@op("FLO", "U32 SH")
def flo(i: Instruction) -> Run:
    """The place of the highest bit, or with SH the zeros above it; of 0 all ones."""
    a, put = u32(i, 1), write32(i, 0)
    if "U32" not in i.modifiers:
        raise i.unknown("a signed number")

    def run(m: State, lanes: Lanes) -> None:
        x = a(m, lanes)
        place = (np.frexp(x.astype(np.float64))[1] - 1).astype(np.int64)
        found = np.where(x == 0, -1, 31 - place if "SH" in i.modifiers else place)
        put(m, lanes, found.astype(np.int32).view(U32))

    return run
