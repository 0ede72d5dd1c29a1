"""Float64 arithmetic and the special-function unit."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.sass.floats import flush
from benchmarks.sass.memory import Array
from benchmarks.sass.operands import f32, f64, u32, write32, write64, write_f32
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

# C's names of the rounding modes, as numbers on x86 and Arm.
ROUNDING = {
    "x86_64": {"RM": 0x400, "RP": 0x800, "RZ": 0xC00},
    "aarch64": {"RP": 0x400000, "RM": 0x800000, "RZ": 0xC00000},
}


@cache
def mathematics() -> ctypes.CDLL:
    """The C library's fma and fesetround: exact, and apart from everything here."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    library.fma.restype = ctypes.c_double
    library.fma.argtypes = [ctypes.c_double] * 3
    return library


def fma(a: Array, b: Array, c: Array, direction: str = "") -> Array:
    """a * b + c, rounded once: to nearest, or in the direction RM, RP or RZ."""
    library = mathematics()
    shape = np.broadcast_shapes(a.shape, b.shape, c.shape)
    terms = [np.broadcast_to(x, shape).tolist() for x in (a, b, c)]
    if direction:
        library.fesetround(ROUNDING[platform.machine()][direction])
    try:
        found = [library.fma(*each) for each in zip(*terms, strict=True)]
    finally:
        library.fesetround(0)
    return np.array(found, np.float64)


def rounded(i: Instruction, terms: Callable[[State, Lanes], tuple[Array, Array, Array]]) -> Run:
    """A fused operation with the instruction's rounding; a NaN is the one the hardware makes."""
    put = write64(i, 0)
    direction = next(iter(i.modifiers), "")

    def run(m: State, lanes: Lanes) -> None:
        value = fma(*terms(m, lanes), direction)
        bits = value.view(np.uint64)
        put(m, lanes, np.where(np.isnan(value), np.uint64(0xFFF8000000000000), bits))

    return run


@op("DADD", "RM RP RZ")
def dadd(i: Instruction) -> Run:
    a, b, one = f64(i, 1), f64(i, 2), np.ones(1)
    return rounded(i, lambda m, lanes: (a(m, lanes), one, b(m, lanes)))


@op("DMUL", "RM RP RZ")
def dmul(i: Instruction) -> Run:
    a, b = f64(i, 1), f64(i, 2)

    def terms(m: State, lanes: Lanes) -> tuple[Array, Array, Array]:
        x, y = a(m, lanes), b(m, lanes)
        # A zero of the product's own sign leaves it as it is.
        return x, y, np.copysign(0.0, np.copysign(1.0, x) * np.copysign(1.0, y))

    return rounded(i, terms)


@op("DFMA", "RM RP RZ")
def dfma(i: Instruction) -> Run:
    a, b, c = f64(i, 1), f64(i, 2), f64(i, 3)
    return rounded(i, lambda m, lanes: (a(m, lanes), b(m, lanes), c(m, lanes)))


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "EX2": np.exp2,
    "LG2": np.log2,
    "RCP": lambda x: 1 / x,
    "RSQ": lambda x: 1 / np.sqrt(x),
    "SQRT": np.sqrt,
    "TANH": np.tanh,
}


@op("MUFU", "EX2 LG2 RCP RSQ SQRT TANH RCP64H RSQ64H")
def mufu(i: Instruction) -> Run:
    """The function to the last bit; the hardware's is off by 2^-22 or so of it.

    The 64H forms take and give the upper half of a float64.
    """
    (name,) = i.modifiers
    if not name.endswith("64H"):
        a, put, function = f32(i, 1), write_f32(i, 0), FUNCTIONS[name]
        return lambda m, lanes: put(
            m,
            lanes,
            flush(function(flush(a(m, lanes)).astype(np.float64)).astype(np.float32)),
        )
    upper, put_upper, function = u32(i, 1), write32(i, 0), FUNCTIONS[name[:3]]

    def run(m: State, lanes: Lanes) -> None:
        x = (upper(m, lanes).astype(np.uint64) << np.uint64(32)).view(np.float64)
        found = function(x).view(np.uint64) >> np.uint64(32)
        put_upper(m, lanes, found.astype(np.uint32))

    return run
