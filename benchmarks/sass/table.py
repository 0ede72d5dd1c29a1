"""The table of operations: an opcode, the modifiers understood, and what makes it runnable."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.sass.state import Lanes, State
from benchmarks.sass.text import Instruction

Run = Callable[[State, Lanes], None]
Maker = Callable[[Instruction], Run]
OPERATIONS: dict[str, tuple[frozenset[str], Maker]] = {}


def op(opcode: str, modifiers: str = "") -> Callable[[Maker], Maker]:
    """Enter a maker under an opcode, with the modifiers it understands."""

    def enter(make: Maker) -> Maker:
        OPERATIONS[opcode] = (frozenset(modifiers.split()), make)
        return make

    return enter


def is_uniform(opcode: str) -> bool:
    """Whether it is of the datapath that computes once a warp: U and the name of another."""
    return opcode == "LDCU" or (opcode.startswith("U") and opcode[1:] in OPERATIONS)


def bind(i: Instruction) -> Run:
    """What executes this instruction, or the error that names what is not known of it."""
    opcode = "LDC" if i.opcode == "LDCU" else i.opcode[1:] if is_uniform(i.opcode) else i.opcode
    if opcode not in OPERATIONS:
        raise i.unknown(f"the opcode {i.opcode}")
    known, make = OPERATIONS[opcode]
    for modifier in sorted(i.modifiers - known):
        raise i.unknown(f"the modifier .{modifier}")
    try:
        return make(i)
    except (IndexError, ValueError):
        raise i.unknown("the operands") from None
