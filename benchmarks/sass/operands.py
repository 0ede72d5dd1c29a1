"""How an instruction's operands are read and written: one closure each, made once.

A reader is called with the machine and the lanes that execute, and returns one number a lane, or an
array of one number where all lanes have the same. Lanes are threads, or warps for an instruction of
the uniform datapath, whose registers UR and UP exist once a warp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.sass.memory import Array
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.text import Instruction, Operand

Read = Callable[[State, Lanes], Array]
Write = Callable[[State, Lanes, Array], None]
SIGN32 = np.uint32(0x80000000)
SIGN64 = np.uint64(1 << 63)


def constant32(value: int) -> Array:
    """One 32-bit number for all lanes."""
    return np.array([value & 0xFFFFFFFF], np.uint32)


def word(i: Instruction, each: Operand, offset: int = 0) -> Read:
    """The bits of one 32-bit register, constant or immediate, `offset` registers on; no sign."""
    at = each.number + offset
    if each.kind in ("R", "UR") and each.number < 0:
        zero = constant32(0)
        return lambda m, lanes: zero
    if each.kind == "R":
        return lambda m, lanes: m.R[at, lanes.thread]
    if each.kind == "UR":
        return lambda m, lanes: m.UR[at, lanes.warp]
    if each.kind in ("imm", "float"):
        wide = each.number if each.kind == "imm" else 0
        value = constant32(each.number if offset == 0 else (-1 if wide < 0 else 0))
        return lambda m, lanes: value
    if each.kind == "const":
        return constant(i, each, offset)
    raise i.unknown(f"an operand of kind {each.kind}")


def constant(i: Instruction, each: Operand, offset: int = 0) -> Read:
    """32 bits of the constant bank."""
    if each.name != "0":
        raise i.unknown(f"the constant bank {each.name}")
    if each.base >= 0 or each.uniform >= 0:
        raise i.unknown("an indexed constant")
    at = each.number + 4 * offset
    return lambda m, lanes: m.constants.read(at)


def plain(i: Instruction, each: Operand, *suffixes: str) -> None:
    """Refuse a suffix such as .H0_H0 where it is not understood."""
    if each.suffix and each.suffix not in suffixes:
        raise i.unknown(f"the suffix {each.suffix}")


def u32(i: Instruction, k: int) -> Read:
    """Operand k as an integer: -x is the two's complement, ~x the bits turned over."""
    each = i.operands[k]
    plain(i, each)
    read = word(i, each)
    if each.absolute:
        raise i.unknown("an absolute value of an integer")
    if each.negative:
        return lambda m, lanes: np.uint32(0) - read(m, lanes)
    if each.inverted or each.negated:
        return lambda m, lanes: ~read(m, lanes)
    return read


def u64(i: Instruction, k: int) -> Read:
    """Operand k as a pair of registers; an immediate or RZ is extended."""
    each = i.operands[k]
    plain(i, each, ".64")
    low, high = word(i, each), word(i, each, 1)

    def read(m: State, lanes: Lanes) -> Array:
        return low(m, lanes).astype(np.uint64) | high(m, lanes).astype(np.uint64) << np.uint64(32)

    if each.negative:
        return lambda m, lanes: np.uint64(0) - read(m, lanes)
    if each.inverted:
        return lambda m, lanes: ~read(m, lanes)
    return read


def signed_bits(each: Operand, read: Read, sign: Any) -> Read:
    """Sign and absolute value of a floating-point operand, on its bits: a NaN keeps its own."""
    if each.absolute and each.negative:
        return lambda m, lanes: read(m, lanes) | sign
    if each.absolute:
        return lambda m, lanes: read(m, lanes) & ~sign
    if each.negative:
        return lambda m, lanes: read(m, lanes) ^ sign
    return read


def f32_bits(i: Instruction, k: int) -> Read:
    """Operand k as the bits of a float32, its sign applied."""
    plain(i, i.operands[k])
    return signed_bits(i.operands[k], word(i, i.operands[k]), SIGN32)


def f32(i: Instruction, k: int) -> Read:
    """Operand k as float32."""
    bits = f32_bits(i, k)
    return lambda m, lanes: bits(m, lanes).view(np.float32)


def f64(i: Instruction, k: int) -> Read:
    """Operand k as float64; an immediate gives its upper half."""
    each = i.operands[k]
    plain(i, each)
    low, high = word(i, each), word(i, each, 1)
    if each.kind in ("float", "imm"):
        upper = np.array([(each.number & 0xFFFFFFFF) << 32], np.uint64)
        return lambda m, lanes: upper.view(np.float64)

    def read(m: State, lanes: Lanes) -> Array:
        return low(m, lanes).astype(np.uint64) | high(m, lanes).astype(np.uint64) << np.uint64(32)

    bits = signed_bits(each, read, SIGN64)
    return lambda m, lanes: bits(m, lanes).view(np.float64)


def predicate(i: Instruction, each: Operand) -> Read:
    """A predicate register, maybe negated."""
    at, turned = each.number, each.negated
    if each.kind not in ("P", "UP"):
        raise i.unknown(f"{each.kind} where a predicate is expected")
    if at < 0:
        value = np.array([not turned])
        return lambda m, lanes: value
    if each.kind == "P":
        if turned:
            return lambda m, lanes: ~m.P[at, lanes.thread]
        return lambda m, lanes: m.P[at, lanes.thread]
    if turned:
        return lambda m, lanes: ~m.UP[at, lanes.warp]
    return lambda m, lanes: m.UP[at, lanes.warp]


def write32(i: Instruction, k: int, offset: int = 0) -> Write:
    """Into the register that operand k names, or the one `offset` behind it."""
    each = i.operands[k]
    at = each.number + offset
    plain(i, each)
    if each.kind not in ("R", "UR"):
        raise i.unknown(f"a result in {each.kind}")
    return writing(each, at)


def writing(each: Operand, at: int) -> Write:
    """Into entry `at` of the operand's file: a thread's (R, P) or a warp's (UR, UP)."""
    file, whose = each.kind, "warp" if each.kind.startswith("U") else "thread"
    if each.number < 0:  # RZ and PT swallow it
        return lambda m, lanes, value: None

    def write(m: State, lanes: Lanes, value: Array) -> None:
        getattr(m, file)[at, getattr(lanes, whose)] = value

    return write


def write_f32(i: Instruction, k: int) -> Write:
    """A float32 into a register; a NaN is the one that the hardware makes."""
    put = write32(i, k)

    def write(m: State, lanes: Lanes, value: Array) -> None:
        bits = value.view(np.uint32)
        put(m, lanes, np.where(np.isnan(value), np.uint32(0x7FFFFFFF), bits))

    return write


def write64(i: Instruction, k: int) -> Write:
    """A 64-bit number, integer or float, into a pair of registers."""
    low, high = write32(i, k), write32(i, k, 1)

    def write(m: State, lanes: Lanes, value: Array) -> None:
        bits = value.view(np.uint64)
        low(m, lanes, bits.astype(np.uint32))
        high(m, lanes, (bits >> np.uint64(32)).astype(np.uint32))

    return write


def write_predicate(i: Instruction, k: int) -> Write:
    """Into a predicate register."""
    each = i.operands[k]
    if each.kind not in ("P", "UP") or each.negated:
        raise i.unknown(f"{each.kind} where a predicate is written")
    return writing(each, each.number)


class Layout(NamedTuple):
    """The operands of `D [, Pout...], a, b, c [, Pin...]`: where each part stands."""

    outs: tuple[int, ...]
    sources: tuple[int, ...]
    ins: tuple[int, ...]


def layout(i: Instruction, first: int = 1) -> Layout:
    """Leading and trailing predicates told from the sources between them."""
    kinds = [each.kind in ("P", "UP") for each in i.operands]
    start, end = first, len(kinds)
    while start < end and kinds[start]:
        start += 1
    while end > start and kinds[end - 1]:
        end -= 1
    return Layout(
        tuple(range(first, start)), tuple(range(start, end)), tuple(range(end, len(kinds)))
    )
