"""What is issued how often, by the rules of the hardware: worked out by hand for a few lines."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sass import cost
from benchmarks.sass.compiling import Kernel
from benchmarks.sass.fronts import Code
from benchmarks.sass.launch import Launched
from benchmarks.sass.memory import Fault
from benchmarks.sass.occupancy import occupancy
from benchmarks.sass.state import Shape
from benchmarks.sass.text import Function, instruction
from tests.benchmarks.one_warp import machine

PARTING = [
    "S2R R0, SR_LANEID",
    "ISETP.GE.AND P0, PT, R0, 0x8, PT",
    "BSSY B0, 0x60",
    "@P0 BRA 0x50",
    "MOV R1, 0x7",
    "MOV R2, 0x9",
    "BSYNC B0",
    "MOV R3, R1",
    "EXIT",
]


def test_a_parted_warp_issues_twice_until_it_comes_together() -> None:
    made = machine(PARTING, threads=64)
    made.R[1] = 1
    made.run()
    # Two warps; at 0x50 both halves of each have arrived, but apart.
    assert made.counts.tolist() == [2, 2, 2, 2, 2, 4, 4, 2, 2]
    assert made.R[3, :32].tolist() == [7] * 8 + [1] * 24


def test_nothing_but_a_barrier_joins_a_parted_warp() -> None:
    lines = [line if "B0" not in line else "NOP" for line in PARTING]
    made = machine(lines)
    made.run()
    assert made.counts.tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2]


def test_a_warp_that_nobody_parts_issues_once() -> None:
    lines = ["ISETP.GE.AND P0, PT, R0, 0x8, PT" if "LANEID" in x else x for x in PARTING]
    made = machine(lines)
    made.R[0] = 3
    made.run()
    assert made.counts.tolist() == [1] * 9


def test_two_halves_may_each_part_again_at_the_same_barrier() -> None:
    # Lanes below 16 and above part; each half parts once more by the same lines, and must come
    # together only within itself before the outer barrier joins them.
    lines = [
        "S2R R0, SR_LANEID",
        "LOP3.LUT P1, RZ, R0, 0x1, RZ, 0xc0, !PT",
        "ISETP.GE.AND P0, PT, R0, 0x10, PT",
        "BSSY B0, 0xd0",
        "@P0 BRA 0x70",
        "MOV R5, 0x70",  # the lower half takes one step more, so that it comes later
        "NOP",
        "BSSY B1, 0xb0",
        "@P1 BRA 0xa0",
        "NOP",
        "NOP",
        "BSYNC B1",
        "NOP",
        "BSYNC B0",
        "MOV R1, 0x1",
        "EXIT",
    ]
    made = machine(lines)
    made.run()
    counts = made.counts.tolist()
    assert counts[5:7] == [1, 1]
    # Halves, and quarters of them behind the second branch.
    assert counts[7:] == [2, 2, 2, 4, 4, 2, 2, 1, 1]


def test_a_lane_that_leaves_is_not_waited_for() -> None:
    lines = PARTING[:4] + ["EXIT"] + PARTING[5:]
    made = machine(lines)
    made.run()
    assert made.counts.tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_a_predicated_instruction_is_issued_for_nobody_too() -> None:
    made = machine(["@!PT MOV R1, 0x7", "EXIT"])
    made.run()
    assert made.counts.tolist() == [1, 1] and not (made.R[1] == 7).any()


def test_a_call_returns_to_where_it_was_told() -> None:
    made = machine(["MOV R4, 0x20", "CALL.REL.NOINC 0x40", "MOV R1, R2", "EXIT", "MOV R2, 0x5",
                    "RET.REL.NODEC R4 0x0"])  # fmt: skip
    made.run()
    assert made.counts.tolist() == [1] * 6 and (made.R[1] == 5).all()


def test_what_is_written_before_a_barrier_is_read_behind_it() -> None:
    # Each of 64 threads writes its number, and reads that of the thread 32 on: the other warp's.
    lines = [
        "S2R R0, SR_TID.X",
        "SHF.L.U32 R1, R0, 0x2, RZ",
        "LOP3.LUT R2, R1, 0x80, RZ, 0x3c, !PT",
        "STS [R1+0x400], R0",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "LDS R3, [R2+0x400]",
        "EXIT",
    ]
    made = machine(lines, threads=64)
    made.run()
    assert made.R[3].tolist() == [thread ^ 32 for thread in range(64)]
    assert made.counts.tolist() == [2] * 7


def test_a_barrier_that_some_never_reach_is_an_error() -> None:
    made = machine(["UCGABAR_WAIT", "EXIT"])
    with pytest.raises(Fault, match="never come to UCGABAR_WAIT"):
        made.run()


def test_shuffles() -> None:
    made = machine(
        ["S2R R0, SR_LANEID", "SHFL.BFLY PT, R1, R0, 0x5, 0x1f", "SHFL.IDX PT, R2, R0, 0x3, 0x181f",
         "SHFL.DOWN P0, R3, R0, 0x1, 0x1f", "EXIT"]
    )  # fmt: skip
    made.run()
    lanes = np.arange(32)
    assert made.R[1].tolist() == (lanes ^ 5).tolist()
    assert made.R[2].tolist() == (lanes // 8 * 8 + 3).tolist()  # segments of eight
    assert made.R[3].tolist() == [*range(1, 32), 31] and made.P[0].tolist() == [True] * 31 + [False]


def launched(
    lines: list[str], registers: int = 32, threads: int = 128, shared: int = 1024
) -> Launched:
    code = Code(Function("f", [instruction(16 * k, line) for k, line in enumerate(lines)]))
    path = [(k, True) for k in range(len(lines))]
    kernel = Kernel("f", registers, 0, shared, [], 0, "")
    shape = Shape(1, threads, shared_bytes=shared)
    return Launched(kernel, shape, code, np.ones(len(lines)), 1, path)


def test_loads_in_flight_end_where_one_is_used() -> None:
    load = "LDG.E.128 R{}, desc[UR4][R2.64]".format
    lines = [
        load(4),
        load(8),
        load(12),
        "FADD R0, R9, R9",
        load(16),
        "STG.E.128 desc[UR4][R2.64], R4",
    ]
    assert cost.bytes_in_flight(launched(lines)) == 48
    assert cost.bytes_in_flight(launched(["FADD R0, R1, R1", load(4)])) == 16
    # The second asks for its address, which the first brings.
    assert cost.bytes_in_flight(launched(["LDG.E.64 R2, desc[UR4][R6.64]", load(8)])) == 16


def test_copies_in_flight_end_where_they_are_waited_for() -> None:
    copy = ["LDGSTS.E.BYPASS.128 [R13], desc[UR6][R2.64]", "LDGDEPBAR"]
    # Three groups under way; two may stay, to which a fourth is added, then none may.
    lines = [*copy * 3, "DEPBAR.LE SB0, 0x2", *copy, "DEPBAR.LE SB0, 0x0", *copy]
    assert cost.bytes_in_flight(launched(lines)) == 48
    assert cost.bytes_in_flight(launched([*copy, "DEPBAR.LE SB0, 0x0", *copy * 2])) == 32
    assert cost.bytes_in_flight(launched([*copy, "DEPBAR.LE SB0, 0x1", *copy * 2])) == 48


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "blocks"),
    # The first four are what __launch_bounds__ of csrc/cuda ask for; then the limit of threads, of
    # blocks, of shared memory.
    [(64, 128, 1024, 8), (64, 256, 1024, 4), (80, 384, 1024, 2), (128, 512, 1024, 1),
     (32, 1024, 1024, 2), (16, 32, 1024, 32), (32, 128, 60 * 1024, 3)],
)  # fmt: skip
def test_occupancy(registers: int, threads: int, shared: int, blocks: int) -> None:
    assert occupancy(registers, threads, shared) == blocks


def test_the_roofline_names_the_fullest_unit() -> None:
    h100 = cost.GPUS[0]
    # 400 instructions are 100 clocks; 264 GHz of multiprocessors bring 1148 bytes meanwhile.
    share, unit = cost.roofline({"issue": 400.0, "special": 20.0}, 2296.0, 132, h100, "sm_90")
    assert unit == "issue" and share == pytest.approx(2296 / (3.0e12 * 100 / (132 * 1.98e9)))
    assert (
        cost.roofline({"issue": 400.0, "special": 60.0}, 2296.0, 132, h100, "sm_90")[1] == "special"
    )
    assert cost.roofline({"issue": 400.0}, 2296.0, 8, h100, "sm_90")[1] == "latency"
    assert cost.roofline({"issue": 400.0}, 2296.0, 132, h100, "sm_100")[1] == "-"


def test_a_kernel_is_called_by_its_own_name() -> None:
    mangled = "_ZN9hvdfilter4cuda8residentINS0_5BrainELi512ELi8ELi512ELb1ELb0EEEvNS0_3JobEi"
    assert cost.short_name(mangled) == "resident"
