"""Float32 arithmetic, and comparisons of every floating type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.sass.memory import Array
from benchmarks.sass.operands import Read, f32, f64, plain, predicate, write_f32, write_predicate
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

F32, F64, I64 = np.float32, np.float64, np.int64
SMALLEST = F32(2.0**-126)


def flush(x: Array) -> Array:
    """Numbers below the smallest normal one become a zero of their sign."""
    return np.where(np.abs(x) < SMALLEST, np.copysign(F32(0), x), x)


def reader(i: Instruction, k: int) -> Read:
    """A float32 operand, flushed where the instruction says so."""
    read = f32(i, k)
    return (lambda m, lanes: flush(read(m, lanes))) if "FTZ" in i.modifiers else read


def writer(i: Instruction, k: int = 0) -> Any:
    """A float32 result, flushed where the instruction says so."""
    put = write_f32(i, k)
    return (lambda m, lanes, x: put(m, lanes, flush(x))) if "FTZ" in i.modifiers else put


def to_odd(s: Array, error: Array) -> Array:
    """A float64 sum rounded to odd, so that rounding it once more rounds the exact sum.

    `error` is what the sum lost. Boldo and Melquiond, Emulation of a FMA and correctly rounded
    sums, IEEE Transactions on Computers 57(4), 2008.
    """
    bits = np.ascontiguousarray(s).view(I64)
    step = np.where((error > 0) == (s > 0), I64(1), I64(-1))
    inexact = np.isfinite(s) & (error != 0) & (bits & 1 == 0)
    return np.where(inexact, bits + step, bits).view(F64)


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c with one rounding, in float64 rounded to odd; the factors have 24 bits at most."""
    product, term = a.astype(F64) * b.astype(F64), c.astype(F64)
    s = product + term
    part = s - product
    return to_odd(s, (product - (s - part)) + (term - part))


def single(exact: Array, i: Instruction) -> Array:
    """Float32 of an exact sum rounded to odd, in the instruction's direction; SAT: in [0, 1]."""
    near = exact.astype(F32)
    if "RP" in i.modifiers:
        near = np.where(near < exact, np.nextafter(near, F32(np.inf)), near)
    elif "RM" in i.modifiers:
        near = np.where(near > exact, np.nextafter(near, F32(-np.inf)), near)
    elif "RZ" in i.modifiers:
        near = np.where(np.abs(near) > np.abs(exact), np.nextafter(near, F32(0)), near)
    if "SAT" in i.modifiers:  # a NaN becomes 0
        near = np.where(near > 0, np.minimum(near, F32(1)), F32(0))
    return near


ONE, MINUS_ZERO = np.ones(1, F32), np.full(1, -0.0, F32)


@op("FADD", "FTZ RM RP RZ SAT")
@op("FMUL", "FTZ RM RP RZ SAT")
@op("FFMA", "FTZ RM RP RZ SAT")
def ffma(i: Instruction) -> Run:
    """A sum, a product or both, rounded once."""
    reads, put = [reader(i, k) for k in range(1, len(i.operands))], writer(i)
    if len(reads) != (3 if i.opcode == "FFMA" else 2):
        raise i.unknown("the operands")

    if i.opcode != "FFMA" and not i.modifiers - {"FTZ"}:
        x, y = reads
        join = np.add if i.opcode == "FADD" else np.multiply
        return lambda m, lanes: put(m, lanes, join(x(m, lanes), y(m, lanes)))

    def run(m: State, lanes: Lanes) -> None:
        terms = [read(m, lanes) for read in reads]
        if i.opcode == "FADD":
            terms.insert(1, ONE)
        elif i.opcode == "FMUL":
            terms.append(MINUS_ZERO)
        put(m, lanes, single(fused(*terms), i))

    return run


@op("FADD2")
@op("FMUL2")
@op("FFMA2")
def ffma2(i: Instruction) -> Run:
    """The same for a pair of registers, each by itself."""
    halves = []
    for offset in (0, 1):
        found = []
        for x in i.operands:
            plain(i, x, ".F32x2.HI_LO")
            if x.kind not in ("R", "UR"):
                raise i.unknown("the operands")
            found.append(replace(x, suffix="", number=x.number + offset * (x.number >= 0)))
        halves.append(ffma(replace(i, opcode=i.opcode[:-1], operands=tuple(found))))

    def run(m: State, lanes: Lanes) -> None:
        # Pairs begin at even registers, so neither half writes what the other reads.
        for half in halves:
            half(m, lanes)

    return run


@op("FRND", "FLOOR CEIL TRUNC FTZ")
def frnd(i: Instruction) -> Run:
    """To a whole number."""
    ways = {"FLOOR": np.floor, "CEIL": np.ceil, "TRUNC": np.trunc}
    way = next((ways[name] for name in ways if name in i.modifiers), np.rint)
    a, put = reader(i, 1), writer(i)
    return lambda m, lanes: put(m, lanes, way(a(m, lanes)))


@op("FCHK")
def fchk(i: Instruction) -> Run:
    """Whether a / b must go the careful way; which quotients exactly do is not published.

    Either way is right, so only the count of instructions of extreme quotients is uncertain.
    """
    a, b, put = f32(i, 1), f32(i, 2), write_predicate(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        x, y = np.broadcast_arrays(a(m, lanes), b(m, lanes))
        ex, ey = np.frexp(x)[1], np.frexp(y)[1]
        plain = np.isfinite(x) & np.isfinite(y) & (y != 0) & (np.abs(ey) < 125)
        put(m, lanes, ~(plain & (ex > -100) & (np.abs(ex - ey) < 125)))

    return run


def larger(x: Array, y: Array, spread_nan: bool) -> Array:
    """The larger of two; +0 is above -0, and a NaN loses against a number unless it spreads."""
    best = np.where((x > y) | ((x == y) & ~np.signbit(x)), x, y)
    if spread_nan:
        nan = x.dtype.type(np.nan)
        return np.where(np.isnan(x) | np.isnan(y), nan, best)
    return np.where(np.isnan(x), y, np.where(np.isnan(y), x, best))


def extreme(x: Array, y: Array, smaller: Array, spread_nan: bool) -> Array:
    """The smaller where the predicate holds, else the larger."""
    return np.where(smaller, -larger(-x, -y, spread_nan), larger(x, y, spread_nan))


@op("FMNMX", "FTZ NAN")
@op("FMNMX3", "FTZ NAN")
def fmnmx(i: Instruction) -> Run:
    *sources, gate = range(1, len(i.operands))
    terms, put = [reader(i, k) for k in sources], writer(i)
    which, spread = predicate(i, i.operands[gate]), "NAN" in i.modifiers
    if len(terms) != (3 if i.opcode == "FMNMX3" else 2):
        raise i.unknown("the operands")

    def run(m: State, lanes: Lanes) -> None:
        smaller, value = which(m, lanes), terms[0](m, lanes)
        for term in terms[1:]:
            value = extreme(value, term(m, lanes), smaller, spread)
        put(m, lanes, value)

    return run


RELATIONS = {
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
}
JOIN = {"AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor}
# NE is false of a NaN; with U behind it a relation is true of one.
ORDERS = ("LT", "LE", "GT", "GE", "EQ", "NE")
COMPARING = " ".join([*ORDERS, *(f"{name}U" for name in ORDERS), "NUM", "NAN", *JOIN])


def relation(name: str, x: Array, y: Array) -> Array:
    """A comparison by its name in the machine code."""
    unordered = np.isnan(x) | np.isnan(y)
    if name in ("NUM", "NAN"):
        return unordered if name == "NAN" else ~unordered
    if name == "NE":
        return (x != y) & ~unordered
    if name == "NEU":
        return x != y
    if name.endswith("U"):
        return RELATIONS[name[:-1]](x, y) | unordered
    return RELATIONS[name](x, y)


def comparison(i: Instruction, a: Read, b: Read) -> Run:
    """P, Q = (a ? b) and p, not (a ? b) and p."""
    (join,) = i.modifiers & set(JOIN)
    (name,) = i.modifiers & (set(COMPARING.split()) - set(JOIN))
    gate = predicate(i, i.operands[4])
    first, second = write_predicate(i, 0), write_predicate(i, 1)
    if len(i.operands) != 5:
        raise i.unknown("the operands")

    def run(m: State, lanes: Lanes) -> None:
        found, p = relation(name, a(m, lanes), b(m, lanes)), gate(m, lanes)
        first(m, lanes, JOIN[join](found, p))
        second(m, lanes, JOIN[join](~found, p))

    return run


@op("FSETP", f"FTZ {COMPARING}")
def fsetp(i: Instruction) -> Run:
    return comparison(i, reader(i, 2), reader(i, 3))


@op("DSETP", f"{COMPARING} MAX MIN")
def dsetp(i: Instruction) -> Run:
    if not i.modifiers & {"MAX", "MIN"}:
        return comparison(i, f64(i, 2), f64(i, 3))
    # P: a is to be taken, Q: the result is to be made a NaN.
    a, b, first, second = f64(i, 2), f64(i, 3), write_predicate(i, 0), write_predicate(i, 1)
    which = np.greater if "MAX" in i.modifiers else np.less

    def run(m: State, lanes: Lanes) -> None:
        x, y = a(m, lanes), b(m, lanes)
        if (np.isnan(x) | np.isnan(y)).any():
            raise i.unknown("what becomes of a NaN")
        first(m, lanes, which(x, y))
        second(m, lanes, np.zeros_like(x, bool))

    return run
