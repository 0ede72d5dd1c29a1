"""Atomic operations: one lane after the other, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.sass.accesses import (
    Load,
    Store,
    address32,
    address64,
    global_load,
    global_store,
    shared_load,
    shared_store,
)
from benchmarks.sass.memory import Array
from benchmarks.sass.operands import Read, word, write32
from benchmarks.sass.state import Lanes, State
from benchmarks.sass.table import Run, op
from benchmarks.sass.text import Instruction

# The new value out of the old one, the operand and, for CAS, the value to put.
FUNCTIONS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "ADD": lambda old, x, _: old + x,
    "MAX": lambda old, x, _: np.maximum(old, x),
    "MIN": lambda old, x, _: np.minimum(old, x),
    "INC": lambda old, x, _: np.where(old >= x, np.zeros_like(old), old + np.ones_like(old)),
    "DEC": lambda old, x, _: np.where((old == 0) | (old > x), x, old - np.ones_like(old)),
    "EXCH": lambda old, x, _: x,
    "AND": lambda old, x, _: old & x,
    "OR": lambda old, x, _: old | x,
    "XOR": lambda old, x, _: old ^ x,
    "CAS": lambda old, x, y: np.where(old == x, y, old),
}
TYPES = {"F64": np.float64, "F32": np.float32, "S64": np.int64, "S32": np.int32, "64": np.uint64}
KNOWN = f"{' '.join(FUNCTIONS)} {' '.join(TYPES)} U32 FTZ RN E STRONG WEAK GPU SYS SM CTA"


def atomic(i: Instruction, result: int, at: int, address: Read, load: Load, store: Store) -> Run:
    """Operand `at` is the address, `result` that of the old value, -1 for none."""
    names = i.modifiers & set(FUNCTIONS)
    if len(names) != 1:
        raise i.unknown("the operation")
    function = FUNCTIONS[next(iter(names))]
    kind = np.dtype(next((TYPES[name] for name in TYPES if name in i.modifiers), np.uint32))
    count = kind.itemsize // 4

    def reads(k: int) -> list[Read]:
        return [word(i, i.operands[k], offset) for offset in range(count)]

    operands = [reads(k) for k in range(at + 1, len(i.operands))]
    puts = [write32(i, result, k) for k in range(count)] if result >= 0 else []
    if len(operands) != (2 if "CAS" in i.modifiers else 1):
        raise i.unknown("the operands")

    def number(words: list[Array]) -> Array:
        return np.stack(words, 1).copy().view(kind)[:, 0]

    def run(m: State, lanes: Lanes) -> None:
        threads, places = m.thread_numbers[lanes.thread], address(m, lanes)
        for k, thread in enumerate(threads):
            one = Lanes(np.array([thread]), lanes.warp[k : k + 1])
            old = number(load(m, one, places[k : k + 1], kind.itemsize))
            x, *rest = (number([np.broadcast_to(r(m, one), 1) for r in each]) for each in operands)
            new = function(old, x, rest[0] if rest else x).astype(kind).view(np.uint32)
            store(m, one, places[k : k + 1], kind.itemsize, list(new.reshape(-1, 1)))
            for put, value in zip(puts, old.view(np.uint32), strict=False):
                put(m, one, value)

    return run


@op("ATOMG", KNOWN)
def atomg(i: Instruction) -> Run:
    if i.operands[0].number >= 0:
        raise i.unknown("a predicate as a result")
    # CAS is printed without the .64 of its address.
    address = address64(i, 2, narrow="CAS" in i.modifiers)
    return atomic(i, 1, 2, address, global_load, global_store)


@op("RED", KNOWN)
@op("REDG", KNOWN)
def red(i: Instruction) -> Run:
    return atomic(i, -1, 0, address64(i, 0), global_load, global_store)


@op("ATOMS", KNOWN)
def atoms(i: Instruction) -> Run:
    return atomic(i, 0, 1, address32(i, 1), shared_load, shared_store)
