"""Moves, logic, bytes, selections and predicates."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from benchmarks.sass.memory import Array
from benchmarks.sass.operands import (
    Read,
    f32_bits,
    layout,
    plain,
    predicate,
    u32,
    word,
    write32,
    write_predicate,
)
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

U32 = np.uint32
PREDICATES = 7


@op("MOV")
def mov(i: Instruction) -> Run:
    a, put = u32(i, 1), write32(i, 0)
    if any(each.kind != "imm" for each in i.operands[2:]):  # a mask of bytes, always all of them
        raise i.unknown("the operands")
    if any(each.number != 0xF for each in i.operands[2:]):
        raise i.unknown("a mask of bytes")
    return lambda m, lanes: put(m, lanes, a(m, lanes).copy())


def table3(lut: int, a: Array, b: Array, c: Array) -> Array:
    """The function of three bits whose value at (a, b, c) is bit 4a + 2b + c of `lut`, bitwise."""
    terms = [
        (a if at & 4 else ~a) & (b if at & 2 else ~b) & (c if at & 1 else ~c)
        for at in range(8)
        if lut >> at & 1
    ]
    return reduce(np.bitwise_or, terms, (a & b & c) ^ (a & b & c))


@op("LOP3", "LUT")
def lop3(i: Instruction) -> Run:
    """A function of three words, bit by bit; a predicate in front tells whether any bit is set."""
    test = i.operands[0].kind in ("P", "UP")
    first = 1 if test else 0
    *sources, table, gate = range(first + 1, len(i.operands))
    if len(sources) != 3 or i.operands[table].kind != "imm":
        raise i.unknown("the operands")
    always = i.operands[gate]
    if not (always.number < 0 and always.negated):
        raise i.unknown("a predicate of its own")
    a, b, c = (u32(i, k) for k in sources)
    lut, put = i.operands[table].number, write32(i, first)
    flag = write_predicate(i, 0) if test else None

    def run(m: State, lanes: Lanes) -> None:
        value = table3(lut, a(m, lanes), b(m, lanes), c(m, lanes))
        put(m, lanes, value)
        if flag is not None:
            flag(m, lanes, value != 0)

    return run


@op("PLOP3", "LUT")
def plop3(i: Instruction) -> Run:
    """The same for predicates: two results, each with its own function."""
    a, b, c = (predicate(i, i.operands[k]) for k in (2, 3, 4))
    results = [(write_predicate(i, k), i.operands[5 + k].number) for k in (0, 1)]

    def run(m: State, lanes: Lanes) -> None:
        x, y, z = a(m, lanes), b(m, lanes), c(m, lanes)
        found = [table3(lut, x, y, z) for _, lut in results]
        for (put, _), value in zip(results, found, strict=True):
            put(m, lanes, value)

    return run


def choosing(i: Instruction, a: Read, b: Read) -> Run:
    """One of two words, by the predicate behind them."""
    put, which = write32(i, 0), predicate(i, i.operands[3])
    return lambda m, lanes: put(
        m, lanes, np.where(which(m, lanes), a(m, lanes), b(m, lanes)).astype(U32)
    )


@op("SEL")
def sel(i: Instruction) -> Run:
    return choosing(i, u32(i, 1), u32(i, 2))


@op("FSEL")
def fsel(i: Instruction) -> Run:
    return choosing(i, f32_bits(i, 1), f32_bits(i, 2))


@op("PRMT")
def prmt(i: Instruction) -> Run:
    """Four bytes chosen out of the eight of (c, a); bit 3 of a choice spreads the byte's sign."""
    a, by, c, put = u32(i, 1), u32(i, 2), u32(i, 3), write32(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        pair = a(m, lanes).astype(np.uint64) | c(m, lanes).astype(np.uint64) << np.uint64(32)
        choice = by(m, lanes)
        value: Any = U32(0)
        for at in range(4):
            nibble = choice >> U32(4 * at)
            shift = (nibble & U32(7)).astype(np.uint64) * np.uint64(8)
            byte = (pair >> shift).astype(U32) & U32(0xFF)
            sign = np.where(byte & U32(0x80), U32(0xFF), U32(0))
            value = value | np.where(nibble & U32(8), sign, byte) << U32(8 * at)
        put(m, lanes, value.astype(U32))

    return run


@op("P2R")
@op("P2UR")  # as UP2UR
def p2r(i: Instruction) -> Run:
    """Predicates as bits, where the mask says so; elsewhere the bits of b."""
    if i.operands[1].name not in ("PR", "UPR") or i.operands[3].kind != "imm":
        raise i.unknown("the operands")
    b, mask, put = u32(i, 2), i.operands[3].number, write32(i, 0)
    uniform = i.opcode.startswith("U")

    def run(m: State, lanes: Lanes) -> None:
        rows = m.UP[:PREDICATES, lanes.warp] if uniform else m.P[:PREDICATES, lanes.thread]
        value = b(m, lanes) & U32(~mask & 0xFFFFFFFF)
        for at in range(PREDICATES):
            if mask >> at & 1:
                value = value | rows[at].astype(U32) << U32(at)
        put(m, lanes, value)

    return run


@op("R2P")
def r2p(i: Instruction) -> Run:
    """The way back."""
    if i.operands[0].name != "PR" or i.operands[2].kind != "imm":
        raise i.unknown("the operands")
    plain(i, i.operands[1], ".B0", ".B1", ".B2", ".B3")
    shift = 8 * int(i.operands[1].suffix[2:] or "0")
    a, mask = word(i, i.operands[1]), i.operands[2].number

    def run(m: State, lanes: Lanes) -> None:
        value = a(m, lanes)
        for at in range(PREDICATES):
            if mask >> at & 1:
                m.P[at, lanes.thread] = value >> U32(at + shift) & U32(1) != 0

    return run


@op("R2UR")
def r2ur(i: Instruction) -> Run:
    """A register of the first lane of each warp, for the whole warp."""
    shape = layout(i)
    if shape.outs or shape.ins or len(shape.sources) != 1:
        raise i.unknown("the operands")
    a, at = u32(i, shape.sources[0]), i.operands[0].number

    def run(m: State, lanes: Lanes) -> None:
        warps, first = np.unique(lanes.warp, return_index=True)
        m.UR[at, warps] = np.broadcast_to(a(m, lanes), lanes.warp.shape)[first]

    return run
