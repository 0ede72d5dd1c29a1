"""How many instructions the CUDA kernels issue for a row, counted by running their machine code.

    python -m benchmarks.instructions                      the table for sm_90
    python -m benchmarks.instructions --arch sm_90 sm_100 --csv
    python -m benchmarks.instructions --what score --classes 1000 --dtype bfloat16 --where

It needs nvcc and cuobjdump and no GPU. A few blocks of a launch of the usual batch are executed
(benchmarks/sass): warp instructions a row of labels in int64, contiguous rows and random targets.
--where shows which source lines they come from. One line a launch, in the order of the launches: of
train those of the loss, and for float16, whose gradient waits for its factor, that of the backward
pass.

    instr/row   warp instructions a row; of them MUFU and conversions of float64 (spec), float64
                arithmetic (fp64), comparing, selecting, shifting and bits (int), loads and stores
                of any memory (mem), branches and barriers (ctrl)
    sync, fence barriers that a warp comes to; full memory barriers (MEMBAR) among its instructions
    flight      bytes a thread has under way before it waits for any
    KiB         the same of all threads that a multiprocessor holds
    regs, spill registers a thread; spilled registers loaded and stored, a row
    bytes       of global memory a row, each counted once
    H100, H200  the speed that the fullest unit allows, as a share of a copy's, and that unit; more
                than 100 % leaves memory as the limit. Latency and launches are not in it, and a
                launch of fewer blocks than multiprocessors has none, nor has another architecture.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe
from benchmarks.sass.cost import (
    GPUS,
    SPILLS,
    bytes_in_flight,
    is_barrier,
    kind,
    roofline,
    short_name,
)
from benchmarks.sass.device import Interpreted
from benchmarks.sass.launch import Launched
from benchmarks.sass.memory import Fault
from benchmarks.sass.occupancy import occupancy
from benchmarks.sass.places import tree
from benchmarks.sass.text import UnknownInstruction
from benchmarks.table import write
from hvdfilter.errors import InstallError
from hvdfilter.scoring.arguments import LABEL_CODES, rows_of
from hvdfilter.scoring.passes import FUSED_DTYPES

# The batches of benchmarks.kernels on a GPU.
ROWS = {10: 262144, 100: 131072, 1000: 32768, 4096: 8192, 32768: 2048, 128256: 1024}
RESULTS = Path(__file__).parent / "results" / "instructions.csv"
IGNORED = -100
DEVICE = (0, 0)  # and stream


@dataclass(frozen=True)
class Row:
    """One line of the CSV: one launch of one call."""

    arch: str
    what: str
    kernel: str
    classes: int
    dtype: str
    rows: int
    threads: int
    cluster: int
    instructions: float
    special: float
    fp64: float
    integer: float
    memory: float
    control: float
    barriers: float
    fences: float
    bytes_in_flight: int
    kib_in_flight: float
    registers: int
    spills: float
    bytes: float
    share_h100: float
    share_h200: float
    bound: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", default=["sm_90"])
    parser.add_argument("--what", nargs="+", choices=("score", "train"), default=["score", "train"])
    parser.add_argument("--classes", nargs="+", type=int, default=list(ROWS))
    types = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", nargs="+", choices=types, default=types)
    parser.add_argument("--where", action="store_true", help="source lines instead of the table")
    parser.add_argument("--csv", action="store_true", help=f"write {RESULTS.name} to results/")
    options = parser.parse_args()
    rows: list[Row] = []
    try:
        for arch in options.arch:
            device = Interpreted(arch)
            if not options.where:
                print(f"\n{arch}\n{HEADER}")
            for what in options.what:
                for classes in options.classes:
                    for name in options.dtype:
                        dtype = getattr(torch, name)
                        for found, done in count(device, arch, what, classes, dtype):
                            rows.append(found)
                            print(where(device, found, done) if options.where else line(found))
    except (InstallError, UnknownInstruction, Fault) as error:
        raise SystemExit(str(error)) from None
    if options.csv:
        release = device.interpreter.build.tools.kit.version
        measured_on = f"counted, not timed: nvcc {release}, {describe(torch.device('cpu'))}"
        write(rows, measured_on, RESULTS)
        print(f"\nwrote {RESULTS}")


def batch(classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random logits and labels of the usual number of rows for so many classes."""
    rows = ROWS.get(classes) or max(1024, 2**27 // (classes * 4))
    generator = torch.Generator().manual_seed(classes)
    some = (torch.randn(1 << 20, generator=generator) * 3).to(dtype)
    # One random piece again and again: the rows are as random, and made at a copy's speed.
    logits = some.repeat(-(-rows * classes // len(some)))[: rows * classes].view(rows, classes)
    return logits, torch.randint(0, classes, (rows,), generator=generator)


def count(
    device: Interpreted, arch: str, what: str, classes: int, dtype: torch.dtype
) -> list[tuple[Row, Launched]]:
    """Each launch of one call."""
    logits, labels = batch(classes, dtype)
    device.interpreter.watch, device.interpreter.whole = True, False
    done = score(device, logits, labels) if what == "score" else train(device, logits, labels)
    call = dict(arch=arch, what=what, classes=classes, rows=len(logits))
    call["dtype"] = str(dtype).removeprefix("torch.")
    return [(row(each, call, len(logits)), each) for each in done]


def row(done: Launched, call: dict[str, Any], rows: int) -> Row:
    """What one launch costs, for each of the rows of the call."""
    per_row = 1 / (done.portion * rows)
    warps = done.blocks * -(-done.shape.threads // 32)
    counts = dict.fromkeys(("issue", "special", "fp64", "integer", "memory", "control"), 0.0)
    counts |= dict.fromkeys(("barriers", "fences", "spills", "other"), 0.0)
    for i, times in zip(done.code.instructions, done.counts.tolist(), strict=True):
        counts[kind(i)] += times * per_row
        counts["issue"] += times * per_row
        counts["spills"] += times * per_row * (i.opcode in SPILLS)
        counts["barriers"] += times / warps * is_barrier(i)
        counts["fences"] += times / warps * (i.opcode == "MEMBAR")
    shape, registers = done.shape, done.kernel.registers
    resident = occupancy(registers, shape.threads, shape.shared_bytes) * shape.threads
    flying, moved = bytes_in_flight(done), done.moved * per_row
    (h100, bound), (h200, _) = (
        roofline(counts, moved, shape.grid, gpu, call["arch"]) for gpu in GPUS
    )
    return Row(
        **call,
        kernel=short_name(done.kernel.name),
        threads=shape.threads,
        cluster=shape.cluster,
        instructions=counts["issue"],
        special=counts["special"],
        fp64=counts["fp64"],
        integer=counts["integer"],
        memory=counts["memory"],
        control=counts["control"],
        barriers=counts["barriers"],
        fences=counts["fences"],
        bytes_in_flight=flying,
        kib_in_flight=flying * resident / 1024,
        registers=registers,
        spills=counts["spills"],
        bytes=moved,
        share_h100=h100,
        share_h200=h200,
        bound=bound,
    )


def score(device: Interpreted, logits: Tensor, labels: Tensor) -> list[Launched]:
    """`hvdfilter.score`."""
    table = torch.zeros(4, len(logits))
    device.allow(logits, labels, table)
    device.module.score(
        *rows_of(logits), labels.data_ptr(), LABEL_CODES[labels.dtype], IGNORED, table.data_ptr(),
        *DEVICE,
    )  # fmt: skip
    return list(device.launched)


def train(device: Interpreted, logits: Tensor, labels: Tensor) -> list[Launched]:
    """`hvdfilter.cross_entropy` and its backward pass, whose gradient some types have already."""
    table, loss, total = torch.zeros(4, len(logits)), torch.zeros(()), torch.zeros(())
    grad, upstream = torch.empty_like(logits), torch.ones(())
    fused = logits.dtype in FUSED_DTYPES
    target = (labels.data_ptr(), LABEL_CODES[labels.dtype], 1, IGNORED)
    device.allow(logits, labels, table, loss, total, grad, upstream)
    device.module.cross_entropy(
        *rows_of(logits), *target, 0, 0.0, table.data_ptr(), 0, loss.data_ptr(), total.data_ptr(),
        grad.data_ptr() if fused else 0, grad.stride(0), *DEVICE,
    )  # fmt: skip
    if not fused:
        device.module.cross_entropy_backward(
            *rows_of(logits), *target, 0, 0.0, 0, total.data_ptr(), upstream.data_ptr(),
            grad.data_ptr(), grad.stride(0), *DEVICE,
        )  # fmt: skip
    return list(device.launched)


HEADER = (
    "what  classes dtype    kernel           threads instr/row   spec   fp64    int    mem   ctrl "
    "sync fence flight KiB  regs spill    bytes  H100          H200"
)


def line(row: Row) -> str:
    """One line of the table."""
    shape = f"{row.threads}" + (f"x{row.cluster}" if row.cluster > 1 else "")
    parts = (row.special, row.fp64, row.integer, row.memory, row.control)
    return (
        f"{row.what:5s} {row.classes:7d} {row.dtype:8s} {row.kernel:16s} {shape:>7s} "
        f"{row.instructions:9.5g} {' '.join(f'{part:6.4g}' for part in parts)} "
        f"{row.barriers:4.3g} {row.fences:5.3g} {row.bytes_in_flight:6d} {row.kib_in_flight:3.0f} "
        f"{row.registers:5d} {row.spills:5.3g} {row.bytes:8.6g} "
        f"{percent(row.share_h100)} {row.bound:7s} {percent(row.share_h200)}"
    )


def percent(share: float) -> str:
    """A share, or a dash where there is none."""
    return f"{'-':>5s}" if math.isnan(share) else f"{share:5.0%}"


def where(device: Interpreted, row: Row, done: Launched) -> str:
    """The source lines of one launch, by their share."""
    head = f"{row.arch} {row.what} {row.classes} {row.dtype} {row.kernel}"
    per_row = 1 / (done.portion * row.rows)
    return (
        f"\n{head}: {row.instructions:.5g} a row\n{tree(device.interpreter.build, done, per_row)}"
    )


if __name__ == "__main__":
    main()
