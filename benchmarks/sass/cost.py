"""What counts of instructions say: their kinds, loads in flight, and a roofline."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from benchmarks.sass.launch import Launched
from benchmarks.sass.text import Instruction

MEMORY = set("LD LDG LDS LDL LDC LDCU ULDC LDGSTS ST STG STS STL STAS UBLKCP".split())
MEMORY |= set("ATOM ATOMG ATOMS RED REDG SYNCS".split())
CONTROL = set("BRA BRX CALL RET EXIT BSSY BSYNC BREAK WARPSYNC NOP YIELD BAR".split())
CONTROL |= set("UCGABAR_ARV UCGABAR_WAIT MEMBAR ERRBAR CGAERRBAR CCTL FENCE".split())
SPILLS = {"LDL", "STL"}
FP64 = set("DADD DMUL DFMA DSETP DMNMX".split())
INTEGER = set("IADD3 VIADD LOP3 SHF LEA ISETP SEL PRMT VIMNMX VIADDMNMX IABS P2R PLOP3".split())
INTEGER |= set("MOV FSETP FSEL FMNMX FMNMX3 HMNMX2 VHMNMX".split())


def kind(i: Instruction) -> str:
    """Which unit executes it, of those told apart here."""
    if i.opcode == "MUFU" or (i.opcode in ("F2F", "F2I", "I2F") and "F64" in i.modifiers):
        return "special"
    for name, group in (("fp64", FP64), ("memory", MEMORY), ("control", CONTROL)):
        if i.opcode in group:
            return name
    return "integer" if i.opcode in INTEGER else "other"


def is_barrier(i: Instruction) -> bool:
    """Whether a warp waits there for others, or for a copy."""
    return i.opcode in ("BAR", "UCGABAR_WAIT") or "PHASECHK" in i.modifiers


def width(i: Instruction) -> int:
    """Registers that a load fills or a store takes."""
    found = [int(each) // 32 for each in i.modifiers if each in ("64", "128", "256")]
    return found[0] if found else 1


def read_by(i: Instruction) -> set[int]:
    """The registers that an instruction waits for; it waits for its result's place, too."""
    found = set()
    for each in i.operands:
        pair = i.opcode in FP64 or each.wide or "WIDE" in i.modifiers
        count = width(i) if i.opcode[:2] in ("ST", "LD") and each.kind == "R" else 1 + pair
        first = each.number if each.kind == "R" else each.base if each.kind == "mem" else -1
        if first >= 0:
            found |= set(range(first, first + count))
    return found


def bytes_in_flight(done: Launched) -> int:
    """The most bytes of global memory that a thread has asked for before it uses any of them.

    Of the first warp: loads into registers until one is read, and a lane's copies into shared
    memory until they are waited for. Bulk copies are no thread's; what no lane makes is none.
    """
    waiting: dict[int, tuple[set[int], int]] = {}  # by first register: all, and their bytes
    copies: list[int] = [0]  # bytes of each group of copies, the last one still open
    most = 0
    for at, executed in done.path:
        i = done.code.instructions[at]
        wanted = read_by(i)
        waiting = {k: each for k, each in waiting.items() if not each[0] & wanted}
        if i.opcode == "LDG" and executed and i.operands[0].number >= 0:
            first = i.operands[0].number
            whole = set(range(first, first + width(i)))
            waiting[first] = whole, 2 if i.modifiers & {"U16", "S16"} else 4 * width(i)
        elif i.opcode == "LDGSTS" and executed:
            copies[-1] += 4 * width(i)
        elif i.opcode == "LDGDEPBAR":
            copies.append(0)
        elif i.opcode == "DEPBAR":  # so many groups may still be under way
            copies = [*copies[:-1][-i.operands[1].number :], 0] if i.operands[1].number else [0]
        most = max(most, sum(copies) + sum(size for _, size in waiting.values()))
    return most


@dataclass(frozen=True)
class Gpu:
    """What bounds a kernel: multiprocessors, clock in Hz, a large copy's speed in bytes/s."""

    name: str
    arch: str
    processors: int
    clock: float
    copy: float


GPUS = (Gpu("H100", "sm_90", 132, 1.98e9, 3.0e12), Gpu("H200", "sm_90", 132, 1.98e9, 4.3e12))
# Warp instructions a clock and multiprocessor (compute capability 9.0): four schedulers; 16 lanes
# of special functions and of conversions to and from float64; 64 lanes of float64; 64 of the units
# that compare, select, shift and combine bits. CUDA Programming Guide, arithmetic throughput.
RATES = {"issue": 4.0, "special": 0.5, "fp64": 2.0, "integer": 2.0}


def roofline(
    counts: dict[str, float], moved: float, grid: int, gpu: Gpu, arch: str
) -> tuple[float, str]:
    """The speed that the fullest unit allows, as a share of a copy's, and which unit that is.

    Counts and bytes are a row's. It leaves out latency, launches and the last wave of blocks; a
    launch of so few blocks that some multiprocessors have none has no figure, nor has code that the
    device does not run.
    """
    if arch != gpu.arch:
        return math.nan, "-"
    if grid < gpu.processors:
        return math.nan, "latency"
    seconds = {
        unit: counts.get(unit, 0.0) / rate / gpu.clock / gpu.processors
        for unit, rate in RATES.items()
    }
    bound = max(seconds, key=lambda unit: seconds[unit])
    memory = moved / gpu.copy
    return memory / seconds[bound], bound


def short_name(mangled: str) -> str:
    """The function's own name out of a mangled one."""
    rest, name = re.sub(r"^_ZN?[KL]*", "", mangled), mangled
    while found := re.match(r"L?(\d+)", rest):
        size = int(found.group(1))
        name, rest = rest[found.end() :][:size], rest[found.end() + size :]
    return name
