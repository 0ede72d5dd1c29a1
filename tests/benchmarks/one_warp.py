"""A warp or two that execute a few lines of machine code; a test sets and reads registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.sass.compiling import Kernel
from benchmarks.sass.fronts import Code
from benchmarks.sass.launch import constants
from benchmarks.sass.machine import Machine
from benchmarks.sass.memory import Global
from benchmarks.sass.state import Shape
from benchmarks.sass.text import Function, instruction

LANES = 32


def machine(lines: list[str], codes: dict[int, int] | None = None, threads: int = LANES) -> Machine:
    """One block about to run `lines`; `codes` are the encodings of those with a float in them."""
    codes = codes or {}
    listed = [instruction(16 * k, line, codes.get(k, 0)) for k, line in enumerate(lines)]
    shape = Shape(grid=1, threads=threads, shared_bytes=4096)
    bank = constants("sm_90", Kernel("test", 32, 0, 0, [], 0x210, ""), shape, b"")
    return Machine(Code(Function("test", listed)), shape, 0, 1, bank, Global())


def execute(line: str, code: int = 0, **registers: Any) -> Machine:
    """One instruction on a warp; R4=... sets a register, R4_64=... a pair, P0=... a predicate."""
    made = machine([line, "EXIT"], {0: code})
    for name, values in registers.items():
        number = int(name.partition("_")[0][1:])
        bits = np.asarray(values)
        if name[0] == "P":
            made.P[number] = bits
        elif name.endswith("_64"):
            wide = bits.view(np.uint64)
            made.R[number] = wide.astype(np.uint32)
            made.R[number + 1] = (wide >> np.uint64(32)).astype(np.uint32)
        else:
            made.R[number] = bits.view(np.uint32)
    made.run()
    return made


def pair(made: Machine, number: int) -> Any:
    """A pair of registers as 64-bit numbers."""
    low, high = made.R[number].astype(np.uint64), made.R[number + 1].astype(np.uint64)
    return low | high << np.uint64(32)
