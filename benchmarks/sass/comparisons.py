"""Integer comparisons, and the smaller or larger of two."""

from __future__ import annotations

import numpy as np

from benchmarks.sass.operands import layout, predicate, u32, write32, write_predicate
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

U32, I32 = np.uint32, np.int32
COMPARISONS = {
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
}
COMBINE = {"AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor}


@op("ISETP", "LT LE GT GE EQ NE AND OR XOR U32 EX")
def isetp(i: Instruction) -> Run:
    """P, Q = (a ? b) and p, not (a ? b) and p; EX: the upper half of a 64-bit comparison."""
    (name,) = i.modifiers & set(COMPARISONS)
    (join,) = i.modifiers & set(COMBINE)
    compare, combine = COMPARISONS[name], COMBINE[join]
    kind = U32 if "U32" in i.modifiers else I32
    a, b = u32(i, 2), u32(i, 3)
    extended = "EX" in i.modifiers
    if len(i.operands) != (6 if extended else 5):
        raise i.unknown("the operands")
    last = predicate(i, i.operands[4])
    lower = predicate(i, i.operands[5]) if extended else None
    first, second = write_predicate(i, 0), write_predicate(i, 1)
    # Of two different upper halves the order decides; equal ones leave it to the lower halves.
    strict = {"LE": np.less, "GE": np.greater}.get(name, compare)

    def run(m: State, lanes: Lanes) -> None:
        x, y = a(m, lanes).view(kind), b(m, lanes).view(kind)
        found = compare(x, y)
        if lower is not None:
            below = lower(m, lanes)
            if name == "EQ":
                found = found & below
            elif name == "NE":
                found = found | below
            else:
                found = strict(x, y) | (np.equal(x, y) & below)
        gate = last(m, lanes)
        first(m, lanes, combine(found, gate))
        second(m, lanes, combine(~found, gate))

    return run


@op("VIMNMX", "U32")
@op("IMNMX", "U32")
def imnmx(i: Instruction) -> Run:
    """Smaller of two where the predicate holds, else the larger."""
    shape = layout(i)
    if any(i.operands[k].number >= 0 for k in shape.outs) or len(shape.sources) != 2:
        raise i.unknown("the operands")
    a, b = (u32(i, k) for k in shape.sources)
    (which,) = (predicate(i, i.operands[k]) for k in shape.ins)
    kind, put = U32 if "U32" in i.modifiers else I32, write32(i, 0)

    def run(m: State, lanes: Lanes) -> None:
        x, y = a(m, lanes).view(kind), b(m, lanes).view(kind)
        found = np.where(which(m, lanes), np.minimum(x, y), np.maximum(x, y))
        put(m, lanes, found.view(U32))

    return run


@op("VIADDMNMX", "U32")
def viaddmnmx(i: Instruction) -> Run:
    """Smaller or larger of a + b and c."""
    a, b, c, put = u32(i, 1), u32(i, 2), u32(i, 3), write32(i, 0)
    which = predicate(i, i.operands[4])
    kind = U32 if "U32" in i.modifiers else I32

    def run(m: State, lanes: Lanes) -> None:
        x, y = (a(m, lanes) + b(m, lanes)).view(kind), c(m, lanes).view(kind)
        found = np.where(which(m, lanes), np.minimum(x, y), np.maximum(x, y))
        put(m, lanes, found.view(U32))

    return run
