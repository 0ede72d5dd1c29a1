"""A launch, run: from what the host code asked for to the counts of every instruction."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

import numpy as np

from benchmarks.sass.compiling import Build, Kernel
from benchmarks.sass.fronts import Code
from benchmarks.sass.machine import Machine
from benchmarks.sass.memory import Array, Constants, Fault, Global, Region
from benchmarks.sass.occupancy import occupancy
from benchmarks.sass.state import Shape

# cudaLaunchAttributeID; the others here change when a kernel starts, not what it does.
CLUSTER = 4
HARMLESS = {0, 6, 7, 8}  # ignore, programmatic serialization and event, priority
LANES = 8192  # so many threads are run side by side, if the cluster is not larger


@dataclass
class Launched:
    """One launch, done: how often each instruction was issued for a warp."""

    kernel: Kernel
    shape: Shape
    code: Code
    counts: Array
    blocks: int  # of the grid, those that were run
    path: list[tuple[int, bool]]  # one warp's instructions in order, and whether a lane took part
    moved: float = 0.0  # bytes of global memory, each once, that the part that was run touched

    @property
    def portion(self) -> float:
        """Which part of the launch was run."""
        return self.blocks / self.shape.grid


def constants(arch: str, kernel: Kernel, shape: Shape, data: bytes) -> Constants:
    """The bank as the driver fills it: what stands where is told by the code that reads it."""
    bank = Constants()
    new = int(arch.removeprefix("sm_").rstrip("af")) >= 100
    block, grid, stack, cluster, descriptor = (
        (0x360, 0x370, 0x37C, 0x36C, 0x358) if new else (0x0, 0xC, 0x28, 0x140, 0x208)
    )
    bank.put(block, struct.pack("<3I", shape.threads, 1, 1))
    bank.put(grid, struct.pack("<3I", shape.grid, 1, 1))
    bank.put(stack, struct.pack("<I", shape.local_bytes))
    bank.put(cluster, struct.pack("<I", shape.cluster > 1))
    bank.put(descriptor, bytes(8))
    bank.put(kernel.parameters_at, data)
    return bank


class Interpreter:
    """Runs every launch of one build's module, and keeps what was counted."""

    def __init__(self, build: Build) -> None:
        self.build, self.memory = build, Global()
        self.module, self.runtime = build.load()
        self.runtime.listen(self)
        self.codes: dict[str, Code] = {}
        self.launched: list[Launched] = []
        self.watch = False
        self.whole = True  # or only the first blocks of each launch, as many as run side by side

    def allow(self, begin: int, size: int) -> None:
        """Memory that the next launches may touch."""
        self.memory.regions.append(Region(begin, size))

    def reset(self) -> None:
        """Forget the memory and the launches so far."""
        self.memory.regions.clear()
        self.launched.clear()

    def code(self, name: str) -> Code:
        """A kernel made ready, once."""
        if name not in self.codes:
            self.codes[name] = Code(self.build.kernels[name].function())
        return self.codes[name]

    def occupancy(self, name: str, threads: int, shared: int) -> int:
        """What the stand-in of the CUDA run-time asks for a kernel."""
        kernel = self.build.kernels[name]
        return occupancy(kernel.registers, threads, kernel.shared + shared)

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        parameters: int,
        attributes: list[tuple[int, bytes]],
    ) -> None:
        """What the stand-in of the CUDA run-time calls."""
        kernel = self.build.kernels[name]
        cluster = 1
        for number, value in attributes:
            if number == CLUSTER:
                cluster = struct.unpack("<3I", value[:12])[0]
            elif number not in HARMLESS:
                raise Fault(f"{name}: the launch attribute {number} is not known: see launch.py")
        if grid[1:] != (1, 1) or block[1:] != (1, 1) or grid[0] % cluster:
            raise Fault(f"{name}: a grid of {grid} blocks of {block} threads is not known")
        shape = Shape(grid[0], block[0], cluster, kernel.shared + shared, kernel.stack)
        data = bytearray(max((at + size for at, size in kernel.parameters), default=0))
        pointers = (ctypes.c_void_p * len(kernel.parameters)).from_address(parameters)
        for (at, size), pointer in zip(kernel.parameters, pointers, strict=True):
            data[at : at + size] = ctypes.string_at(pointer, size)
        done = run(
            self.build.arch, kernel, self.code(name), shape, bytes(data), self.memory,
            whole=self.whole, watch=self.watch,
        )  # fmt: skip
        self.launched.append(done)


def run(
    arch: str,
    kernel: Kernel,
    code: Code,
    shape: Shape,
    data: bytes,
    memory: Global,
    whole: bool = True,
    watch: bool = False,
) -> Launched:
    """All blocks of a launch with these parameters, or as many as run side by side."""
    bank = constants(arch, kernel, shape, data)
    for region in memory.regions:
        region.touched = 0
    done = Launched(kernel, shape, code, np.zeros(len(code.instructions), np.int64), 0, [])
    slots = -(-shape.threads // 32) * 32
    wave = max(1, LANES // (slots * shape.cluster)) * shape.cluster
    for first in range(0, shape.grid if whole else min(wave, shape.grid), wave):
        blocks = min(wave, shape.grid - first)
        machine = Machine(code, shape, first, blocks, bank, memory)
        if watch and first == 0:
            machine.watch = done.path
        machine.run()
        done.counts += machine.counts
        done.blocks += blocks
    done.moved = sum(min(each.touched, each.size * done.portion) for each in memory.regions)
    return done
