"""Loads and stores of every memory, and of constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.sass.memory import LOCAL_WINDOW, SHARED_WINDOW, Array, Fault
from benchmarks.sass.operands import Read, layout, u64, word, write32
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction, Operand

U32, U64 = np.uint32, np.uint64
SIZES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
WIDTHS = " ".join(SIZES)
# How long a line is kept and who must see it: nothing that changes a value here.
HINTS = "E CONSTANT STRONG WEAK GPU SYS SM CTA CLUSTER EF EL LU NA LTC64B LTC128B LTC256B"


def size_of(i: Instruction) -> int:
    """Bytes of one access."""
    return next((SIZES[name] for name in SIZES if name in i.modifiers), 4)


def place(i: Instruction, k: int) -> Operand:
    """The operand that is an address."""
    if i.operands[k].kind != "mem":
        raise i.unknown("the address")
    return i.operands[k]


def address64(i: Instruction, k: int, narrow: bool = False) -> Read:
    """A generic or global address; `narrow`: a pair of registers that is not printed as one."""
    each = place(i, k)
    offset = U64(each.number & (1 << 64) - 1)
    terms: list[Read] = []
    if each.base >= 0:
        if not each.wide and not narrow:
            raise i.unknown("an address of 32 bits")
        terms.append(u64(one(i, Operand("R", each.base)), 0))
    if each.uniform >= 0:
        if not each.uniform_wide:
            raise i.unknown("a uniform address of 32 bits")
        terms.append(u64(one(i, Operand("UR", each.uniform)), 0))
    if not terms or each.scale != 1:
        raise i.unknown("the address")

    def read(m: State, lanes: Lanes) -> Array:
        total = terms[0](m, lanes)
        for term in terms[1:]:
            total = total + term(m, lanes)
        return np.broadcast_to(total + offset, lanes.warp.shape)

    return read


def address32(i: Instruction, k: int) -> Read:
    """An address in shared or local memory."""
    each = place(i, k)
    offset, scale = U32(each.number & 0xFFFFFFFF), U32(each.scale)
    base, uniform = word(i, Operand("R", each.base)), word(i, Operand("UR", each.uniform))
    if each.wide or each.uniform_wide:
        raise i.unknown("an address of 64 bits")
    return lambda m, lanes: np.broadcast_to(
        base(m, lanes) * scale + uniform(m, lanes) + offset, lanes.warp.shape
    )


def one(i: Instruction, each: Operand) -> Instruction:
    """The instruction with another operand, for a reader of it."""
    return Instruction(i.address, i.text, i.opcode, i.modifiers, (each,), i.guard, i.bits)


Load = Callable[[State, Lanes, Array, int], list[Array]]
Store = Callable[[State, Lanes, Array, int, list[Array]], None]


def global_load(m: State, lanes: Lanes, at: Array, size: int) -> list[Array]:
    return m.memory.load(at, size)


def global_store(m: State, lanes: Lanes, at: Array, size: int, values: list[Array]) -> None:
    m.memory.store(at, size, values)


def shared_block(m: State, lanes: Lanes, at: Array, remote: bool) -> tuple[Array, Array]:
    """Which block's memory a shared address names, and the offset there."""
    own, rank = m.block[lanes.thread], at >> U32(24)
    if not remote and (rank != own % m.cluster).any():
        raise Fault("a plain shared-memory access to another block")
    if (rank >= m.cluster).any():
        raise Fault("an access to a block that the cluster does not have")
    return own - own % m.cluster + rank, at & U32(0xFFFFFF)


def shared_load(m: State, lanes: Lanes, at: Array, size: int) -> list[Array]:
    return m.shared.load(*shared_block(m, lanes, at, False), size)


def shared_store(m: State, lanes: Lanes, at: Array, size: int, values: list[Array]) -> None:
    m.shared.store(*shared_block(m, lanes, at, False), size, values)


def local_load(m: State, lanes: Lanes, at: Array, size: int) -> list[Array]:
    return m.local.load(m.thread_numbers[lanes.thread], at, size)


def local_store(m: State, lanes: Lanes, at: Array, size: int, values: list[Array]) -> None:
    m.local.store(m.thread_numbers[lanes.thread], at, size, values)


def windows(m: State, lanes: Lanes, at: Array) -> tuple[Array, Lanes]:
    """Which generic addresses lie in shared memory, and those lanes."""
    upper = at >> U64(32)
    if (upper == U64(LOCAL_WINDOW)).any():
        raise Fault("a generic access to local memory, which the interpreter does not know")
    shared = upper == U64(SHARED_WINDOW)
    return shared, Lanes(m.thread_numbers[lanes.thread][shared], lanes.warp[shared])


def generic_load(m: State, lanes: Lanes, at: Array, size: int) -> list[Array]:
    shared, those = windows(m, lanes, at)
    result = [np.zeros(len(at), U32) for _ in range(max(1, size // 4))]
    if shared.any():
        rows, offsets = shared_block(m, those, at[shared].astype(U32), True)
        for whole, part in zip(result, m.shared.load(rows, offsets, size), strict=True):
            whole[shared] = part
    if not shared.all():
        for whole, part in zip(result, m.memory.load(at[~shared], size), strict=True):
            whole[~shared] = part
    return result


def generic_store(m: State, lanes: Lanes, at: Array, size: int, values: list[Array]) -> None:
    shared, those = windows(m, lanes, at)
    values = [np.broadcast_to(value, at.shape) for value in values]
    if shared.any():
        rows, offsets = shared_block(m, those, at[shared].astype(U32), True)
        m.shared.store(rows, offsets, size, [value[shared] for value in values])
    if not shared.all():
        m.memory.store(at[~shared], size, [value[~shared] for value in values])


def extended(i: Instruction, size: int, value: Array) -> Array:
    """The sign of a signed byte or half spread over the register."""
    if not i.modifiers & {"S8", "S16"}:
        return value
    shift = np.int32(32 - 8 * size)
    return (value.view(np.int32) << shift >> shift).view(U32)


def loading(i: Instruction, address: Read, load: Load) -> Run:
    shape = layout(i)
    size = size_of(i)
    if shape.outs or shape.ins or len(shape.sources) != 1:
        raise i.unknown("the operands")
    puts = [write32(i, 0, k) for k in range(max(1, size // 4))]

    def run(m: State, lanes: Lanes) -> None:
        found = load(m, lanes, address(m, lanes), size)
        for put, value in zip(puts, found, strict=True):
            put(m, lanes, extended(i, size, value))

    return run


def storing(i: Instruction, address: Read, store: Store) -> Run:
    size = size_of(i)
    if len(i.operands) != 2:
        raise i.unknown("the operands")
    reads = [word(i, i.operands[1], k) for k in range(max(1, size // 4))]

    def run(m: State, lanes: Lanes) -> None:
        store(m, lanes, address(m, lanes), size, [read(m, lanes) for read in reads])

    return run


@op("LDG", f"{WIDTHS} {HINTS}")
def ldg(i: Instruction) -> Run:
    return loading(i, address64(i, 1), global_load)


@op("STG", f"{WIDTHS} {HINTS}")
def stg(i: Instruction) -> Run:
    return storing(i, address64(i, 0), global_store)


@op("LD", f"{WIDTHS} {HINTS}")
def ld(i: Instruction) -> Run:
    return loading(i, address64(i, 1), generic_load)


@op("ST", f"{WIDTHS} {HINTS}")
def st(i: Instruction) -> Run:
    return storing(i, address64(i, 0), generic_store)


@op("LDS", WIDTHS)
def lds(i: Instruction) -> Run:
    return loading(i, address32(i, 1), shared_load)


@op("STS", WIDTHS)
def sts(i: Instruction) -> Run:
    return storing(i, address32(i, 0), shared_store)


@op("LDL", f"{WIDTHS} {HINTS}")
def ldl(i: Instruction) -> Run:
    return loading(i, address32(i, 1), local_load)


@op("STL", f"{WIDTHS} {HINTS}")
def stl(i: Instruction) -> Run:
    return storing(i, address32(i, 0), local_store)


@op("LDC", "64 128 U8 U16")
def ldc(i: Instruction) -> Run:
    """One to four registers out of the constant bank; ULDC and LDCU are it, once a warp."""
    if i.modifiers & {"U8", "U16"}:
        size, each = size_of(i), i.operands[1]
        aligned = Operand("const", each.number & ~3, name=each.name)
        whole, put, by = word(i, aligned), write32(i, 0), U32(8 * (each.number & 3))
        return lambda m, lanes: put(m, lanes, whole(m, lanes) >> by & U32((1 << 8 * size) - 1))
    count = size_of(i) // 4
    reads = [word(i, i.operands[1], k) for k in range(count)]
    puts = [write32(i, 0, k) for k in range(count)]

    def run(m: State, lanes: Lanes) -> None:
        for read, put in zip(reads, puts, strict=True):
            put(m, lanes, read(m, lanes))

    return run
