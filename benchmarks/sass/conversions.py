"""From one type of number to another, and arithmetic on pairs of 16-bit numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.sass.floats import extreme, flush, fused
from benchmarks.sass.memory import Array
from benchmarks.sass.operands import (
    Read,
    f32,
    f64,
    predicate,
    u32,
    u64,
    word,
    write32,
    write64,
    write_f32,
)
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction, Operand

F16, F32, F64, U32, U64 = np.float16, np.float32, np.float64, np.uint32, np.uint64
INTEGERS = {"U32": U32, "S32": np.int32, "U64": U64, "S64": np.int64}


def to_half(x: Array) -> Array:
    """The 16 bits of float16, rounded to nearest; NaN is 0x7fff."""
    bits = x.astype(F16).view(np.uint16).astype(U32)
    return np.where(np.isnan(x), U32(0x7FFF), bits)


def to_brain(x: Array) -> Array:
    """The 16 bits of bfloat16, rounded to nearest; NaN is 0x7fff."""
    bits = x.astype(F32).view(U32)
    up = (bits + U32(0x7FFF) + (bits >> U32(16) & U32(1))) >> U32(16)
    return np.where(np.isnan(x), U32(0x7FFF), up)


def from_half(bits: Array) -> Array:
    """Float32 of the lower 16 bits."""
    return (bits & U32(0xFFFF)).astype(np.uint16).view(F16).astype(F32)


def from_brain(bits: Array) -> Array:
    """Float32 of the lower 16 bits."""
    return (bits << U32(16)).view(F32)


@op("F2F", "F64 F32 F16 BF16 FTZ")
def f2f(i: Instruction) -> Run:
    types = [part for part in i.name.split(".")[1:] if part != "FTZ"]
    if types == ["F64", "F32"]:
        single, wide = f32(i, 1), write64(i, 0)
        return lambda m, lanes: wide(m, lanes, single(m, lanes).astype(F64))
    if types == ["F32", "F64"]:
        double, put = f64(i, 1), write_f32(i, 0)
        return lambda m, lanes: put(m, lanes, double(m, lanes).astype(F32))
    narrow = {"F16": to_half, "BF16": to_brain}.get(types[0])
    if narrow is None or types[1:] != ["F32"]:
        raise i.unknown("the types")
    a, low = f32(i, 1), write32(i, 0)
    return lambda m, lanes: low(m, lanes, narrow(a(m, lanes)))


@op("F2FP", "BF16 F16 F32 PACK_AB")
def f2fp(i: Instruction) -> Run:
    """Two float32 packed into one register, the first on top."""
    types = i.name.split(".")[1:]
    if types[1:] != ["F32", "PACK_AB"]:
        raise i.unknown("the types")
    narrow = to_half if types[0] == "F16" else to_brain
    a, b, put = f32(i, 1), f32(i, 2), write32(i, 0)
    return lambda m, lanes: put(m, lanes, narrow(a(m, lanes)) << U32(16) | narrow(b(m, lanes)))


@op("I2F", "U32 S32 U64 S64 F64 RP RM RZ")
@op("I2FP", "U32 S32 F32")
def i2f(i: Instruction) -> Run:
    """An integer as a float, to nearest or in a direction."""
    kind = next((INTEGERS[name] for name in INTEGERS if name in i.modifiers), np.int32)
    wide = np.dtype(kind).itemsize == 8
    read = u64(i, 1) if wide else u32(i, 1)
    direction = next((name for name in ("RP", "RM", "RZ") if name in i.modifiers), "")
    if "F64" in i.modifiers:
        if direction or wide:
            raise i.unknown("the rounding")
        put64 = write64(i, 0)
        return lambda m, lanes: put64(m, lanes, read(m, lanes).view(kind).astype(F64))
    put = write_f32(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        value = read(m, lanes).view(kind)
        found = value.astype(F32)
        exact, near = value.astype(np.longdouble), found.astype(np.longdouble)
        if direction == "RP":
            found = np.where(near < exact, np.nextafter(found, F32(np.inf)), found)
        elif direction == "RM":
            found = np.where(near > exact, np.nextafter(found, F32(-np.inf)), found)
        elif direction == "RZ":
            found = np.where(np.abs(near) > np.abs(exact), np.nextafter(found, F32(0)), found)
        put(m, lanes, found)

    return run


ROUND: dict[str, Callable[[Array], Array]] = {
    "TRUNC": np.trunc,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
}


@op("F2I", "U32 S32 U64 S64 F64 TRUNC FLOOR CEIL FTZ NTZ")
def f2i(i: Instruction) -> Run:
    """A float as an integer, held within the integer's range."""
    kind = next((INTEGERS[name] for name in INTEGERS if name in i.modifiers), np.int32)
    read = f64(i, 1) if "F64" in i.modifiers else f32(i, 1)
    wide = np.dtype(kind).itemsize == 8
    put = write64(i, 0) if wide else write32(i, 0)
    whole = ROUND[next(iter(i.modifiers & set(ROUND)), "")] if i.modifiers & set(ROUND) else np.rint
    limits: Any = np.iinfo(np.dtype(kind))

    def run(m: State, lanes: Lanes) -> None:
        x = read(m, lanes)
        if np.isnan(x).any():
            raise i.unknown("what becomes of a NaN")
        x = whole(flush(x) if "FTZ" in i.modifiers else x).astype(np.longdouble)
        x = np.minimum(np.maximum(x, np.longdouble(limits.min)), np.longdouble(limits.max))
        put(m, lanes, x.astype(kind).view(U64 if wide else U32))

    return run


def packed(i: Instruction) -> list[Operand]:
    """The operands behind the result, where two numbers in a row are one immediate."""
    found: list[Operand] = []
    rest = list(i.operands[1:])
    while rest:
        each = rest.pop(0)
        if each.kind == "float":
            if not rest or rest.pop(0).kind != "float":
                raise i.unknown("an immediate that is no pair")
        found.append(each)
    return found


def halves(i: Instruction, each: Operand) -> tuple[Read, Read]:
    """Upper and lower number of a packed operand as float32."""
    widen = from_brain if "BF16_V2" in i.modifiers else from_half
    read = word(i, each)
    shifts = {"": (16, 0), ".H0_H0": (0, 0), ".H1_H1": (16, 16), ".H1_H0": (16, 0)}
    if each.suffix not in shifts or each.absolute:
        raise i.unknown("the operand's form")

    def half(shift: int) -> Read:
        if each.negative:
            return lambda m, lanes: -widen(read(m, lanes) >> U32(shift))
        return lambda m, lanes: widen(read(m, lanes) >> U32(shift))

    upper, lower = shifts[each.suffix]
    return half(upper), half(lower)


def brain_of_exact(x: Array) -> Array:
    """bfloat16 of a float64 that was rounded to odd, by a float32 rounded to odd."""
    near = x.astype(F32)
    near = np.where(np.abs(near.astype(F64)) > np.abs(x), np.nextafter(near, F32(0)), near)
    inexact = np.isfinite(x) & (near.astype(F64) != x)
    return to_brain((near.view(U32) | inexact.astype(U32)).view(F32))


@op("HADD2", "F32 BF16_V2")
@op("HMUL2", "BF16_V2 MMA")
@op("HFMA2", "BF16_V2 MMA")
def half_pairs(i: Instruction) -> Run:
    """Sum, product or fused product of pairs, each rounded once; F32: of the lower, unrounded."""
    terms = [halves(i, each) for each in packed(i)]
    brain = "BF16_V2" in i.modifiers
    put = write32(i, 0)
    if len(terms) != (3 if i.opcode == "HFMA2" else 2):
        raise i.unknown("the operands")
    if "F32" in i.modifiers:
        (_, x), (_, y) = terms
        single = write_f32(i, 0)
        return lambda m, lanes: single(m, lanes, x(m, lanes) + y(m, lanes))

    def run(m: State, lanes: Lanes) -> None:
        words = []
        for at in (0, 1):
            numbers = [each[at](m, lanes) for each in terms]
            if i.opcode == "HADD2":
                numbers.insert(1, np.ones(1, F32))
            elif i.opcode == "HMUL2":
                numbers.append(np.full(1, -0.0, F32))
            exact = fused(*numbers)
            words.append(brain_of_exact(exact) if brain else to_half(exact))
        put(m, lanes, words[0] << U32(16) | words[1])

    return run


@op("HMNMX2", "BF16_V2 NAN")
@op("VHMNMX", "BF16_V2 NAN")
def half_extremes(i: Instruction) -> Run:
    """The smaller or larger of two or three pairs."""
    *sources, gate = packed(i)
    if len(sources) != (3 if i.opcode == "VHMNMX" else 2):
        raise i.unknown("the operands")
    terms = [halves(i, each) for each in sources]
    which, put, spread = predicate(i, gate), write32(i, 0), "NAN" in i.modifiers
    narrow = to_brain if "BF16_V2" in i.modifiers else to_half

    def run(m: State, lanes: Lanes) -> None:
        smaller, words = which(m, lanes), []
        for at in (0, 1):
            value = terms[0][at](m, lanes)
            for term in terms[1:]:
                value = extreme(value, term[at](m, lanes), smaller, spread)
            words.append(narrow(value))
        put(m, lanes, words[0] << U32(16) | words[1])

    return run
