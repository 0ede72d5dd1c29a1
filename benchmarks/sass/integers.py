"""Integer sums, products and shifts."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.sass.memory import Array
from benchmarks.sass.operands import (
    Read,
    layout,
    predicate,
    u32,
    u64,
    word,
    write32,
    write64,
    write_predicate,
)
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

U32, U64, I32, I64 = np.uint32, np.uint64, np.int32, np.int64
HALF_BITS = U64(32)
LOW = U64(0xFFFFFFFF)


def signed(x: Array) -> Array:
    """Bits as a signed number of 64 bits."""
    return x.view(I32).astype(I64)


def addend(i: Instruction, k: int) -> Read:
    """A term of a sum with a carry, in 64 bits: -x is ~x + 1, which carries where x is 0."""
    each = i.operands[k]
    if not each.negative or each.kind == "imm":
        read = u32(i, k)
        return lambda m, lanes: read(m, lanes).astype(U64)
    bits = word(i, each)
    if "X" in i.modifiers:
        raise i.unknown("a negated term of an extended sum")
    return lambda m, lanes: (~bits(m, lanes)).astype(U64) + U64(1)


def carries(i: Instruction, outs: tuple[int, ...]) -> Any:
    """Writes the carry of a 64-bit sum of 32-bit terms into one or two predicates."""
    writers = [write_predicate(i, k) for k in outs]
    real = [k for k in outs if i.operands[k].number >= 0]

    def write(m: State, lanes: Lanes, total: Array) -> None:
        if not real:
            return
        carry = total >> HALF_BITS
        if (carry > len(real)).any():
            raise i.unknown("a carry of two with one predicate")
        least = 1
        for k, put in zip(outs, writers, strict=True):
            if k in real:
                put(m, lanes, carry >= U64(least))
                least += 1

    return write


@op("IADD3", "X 64")
def iadd3(i: Instruction) -> Run:
    """The sum of three, or of three pairs."""
    shape = layout(i)
    if "64" in i.modifiers:
        return iadd64(i)
    if len(shape.sources) != 3 or ("X" not in i.modifiers and shape.ins):
        raise i.unknown("the operands")
    terms = [addend(i, k) for k in shape.sources]
    ins = [predicate(i, i.operands[k]) for k in shape.ins]
    put, carry = write32(i, 0), carries(i, shape.outs)

    def run(m: State, lanes: Lanes) -> None:
        total = terms[0](m, lanes) + terms[1](m, lanes) + terms[2](m, lanes)
        for read in ins:
            total = total + read(m, lanes)
        put(m, lanes, total.astype(U32))
        carry(m, lanes, total)

    return run


def iadd64(i: Instruction) -> Run:
    """The sum of three pairs of registers."""
    shape = layout(i)
    terms, put = [u64(i, k) for k in shape.sources], write64(i, 0)
    if shape.ins or any(i.operands[k].number >= 0 for k in shape.outs) or "X" in i.modifiers:
        raise i.unknown("a carry")

    def run(m: State, lanes: Lanes) -> None:
        total = terms[0](m, lanes)
        for term in terms[1:]:
            total = total + term(m, lanes)
        put(m, lanes, total)

    return run


@op("VIADD")
@op("IADD")
def viadd(i: Instruction) -> Run:
    a, b, put = u32(i, 1), u32(i, 2), write32(i, 0)
    if len(i.operands) != 3:
        raise i.unknown("the operands")
    return lambda m, lanes: put(m, lanes, a(m, lanes) + b(m, lanes))


@op("IMAD", "MOV U32 IADD SHL X HI WIDE")
def imad(i: Instruction) -> Run:
    if "WIDE" in i.modifiers:
        return imad_wide(i)
    shape = layout(i)
    a, b, c = shape.sources
    if i.modifiers & {"HI"} and i.modifiers & {"X"} or shape.outs:
        raise i.unknown("a carry")
    if bool(shape.ins) != ("X" in i.modifiers) or len(shape.ins) > 1:
        raise i.unknown("the operands")
    put = write32(i, 0)
    if "HI" in i.modifiers:
        wide, tail = product(i, a, b), u64(i, c)  # the addend is a pair, too
        return lambda m, lanes: put(
            m, lanes, (wide(m, lanes) + tail(m, lanes) >> HALF_BITS).astype(U32)
        )
    x, y, z = u32(i, a), u32(i, b), u32(i, c)
    if "X" not in i.modifiers:
        return lambda m, lanes: put(m, lanes, x(m, lanes) * y(m, lanes) + z(m, lanes))
    if i.operands[c].negative:
        raise i.unknown("a negated term of an extended sum")
    carry = predicate(i, i.operands[shape.ins[0]])
    return lambda m, lanes: put(
        m, lanes, x(m, lanes) * y(m, lanes) + z(m, lanes) + carry(m, lanes).astype(U32)
    )


def product(i: Instruction, a: int, b: int) -> Read:
    """The whole 64 bits of a product, signed unless the instruction says U32."""
    x, y = u32(i, a), u32(i, b)
    if "U32" in i.modifiers:
        return lambda m, lanes: x(m, lanes).astype(U64) * y(m, lanes).astype(U64)
    return lambda m, lanes: (signed(x(m, lanes)) * signed(y(m, lanes))).view(U64)


def imad_wide(i: Instruction) -> Run:
    """The 64-bit product plus a pair, with a carry in and out."""
    shape = layout(i)
    a, b, c = shape.sources
    wide, tail, put = product(i, a, b), u64(i, c), write64(i, 0)
    if bool(shape.ins) != ("X" in i.modifiers) or len(shape.outs) > 1:
        raise i.unknown("the operands")
    if shape.outs and ("U32" not in i.modifiers or i.operands[c].negative):
        raise i.unknown("a carry")
    ins = [predicate(i, i.operands[k]) for k in shape.ins]
    outs = [write_predicate(i, k) for k in shape.outs]

    def run(m: State, lanes: Lanes) -> None:
        base, more = wide(m, lanes), tail(m, lanes)
        total = base + more
        over = total < base
        for read in ins:
            carry = read(m, lanes).astype(U64)
            over = over | (total + carry < total)
            total = total + carry
        put(m, lanes, total)
        for write in outs:
            write(m, lanes, over)

    return run


@op("LEA", "HI X SX32")
def lea(i: Instruction) -> Run:
    """(a << s) + b, or with HI the upper half of the pair (c, a) << s, plus b."""
    shape = layout(i)
    high, sign = "HI" in i.modifiers, "SX32" in i.modifiers
    if len(shape.sources) != (4 if high and not sign else 3) or (sign and not high):
        raise i.unknown("the operands")
    if len(shape.ins) > 1 or bool(shape.ins) != ("X" in i.modifiers):
        raise i.unknown("the operands")
    k, last = shape.sources[0], i.operands[shape.sources[-1]]
    if last.kind != "imm":
        raise i.unknown("a shift that is no number")
    a, b, shift = u32(i, k), addend(i, shape.sources[1]), U64(last.number & 31)
    c = u32(i, shape.sources[2]) if high and not sign else None
    ins = [predicate(i, i.operands[each]) for each in shape.ins]
    put, carry = write32(i, 0), carries(i, shape.outs)

    def run(m: State, lanes: Lanes) -> None:
        low = a(m, lanes)
        pair = low.astype(U64)
        if sign:
            pair = signed(low).view(U64)
        elif c is not None:
            pair = pair | c(m, lanes).astype(U64) << HALF_BITS
        pair = pair << shift
        total = (pair >> HALF_BITS if high else pair & LOW) + b(m, lanes)
        for read in ins:
            total = total + read(m, lanes)
        put(m, lanes, total.astype(U32))
        carry(m, lanes, total)

    return run


@op("SHF", "L R U32 S32 U64 S64 HI W")
def shf(i: Instruction) -> Run:
    """A shift of the pair (c, a) by b, of which the lower or, with HI, the upper half is kept."""
    low, by, high, put = u32(i, 1), u32(i, 2), u32(i, 3), write32(i, 0)
    left, upper = "L" in i.modifiers, "HI" in i.modifiers
    bits = 64 if i.modifiers & {"U64", "S64"} else 32
    arithmetic = not left and bool(i.modifiers & {"S32", "S64"})

    def run(m: State, lanes: Lanes) -> None:
        pair = low(m, lanes).astype(U64) | high(m, lanes).astype(U64) << HALF_BITS
        shift = by(m, lanes).astype(U64)
        # Without W a shift stops at the width, where it leaves zeros or signs.
        shift = shift & U64(bits - 1) if "W" in i.modifiers else np.minimum(shift, U64(bits))
        # In two steps, since numpy, as C, does not define a shift by 64.
        half = shift >> U64(1)
        rest = shift - half
        if left:
            pair = pair << half << rest
        elif arithmetic:
            pair = (pair.view(I64) >> half.view(I64) >> rest.view(I64)).view(U64)
        else:
            pair = pair >> half >> rest
        put(m, lanes, (pair >> HALF_BITS if upper else pair).astype(U32))

    return run


@op("IABS")
def iabs(i: Instruction) -> Run:
    a, put = u32(i, 1), write32(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        x = a(m, lanes)
        put(m, lanes, np.where(x >> U32(31) != 0, U32(0) - x, x))

    return run
