"""How many blocks of a kernel a multiprocessor holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a multiprocessor of compute capability 9.0 or 10.0 holds (CUDA Programming Guide)."""

    threads: int = 2048
    blocks: int = 32
    registers: int = 65536
    shared: int = 228 * 1024


LIMITS = Limits()
LEAST_SHARED = 1024  # what the system takes of each block's


def occupancy(registers: int, threads: int, shared: int, limits: Limits = LIMITS) -> int:
    """Blocks that fit by threads, registers a thread, and bytes of shared memory with the least."""
    warps = -(-threads // 32)
    a_warp = -(-registers * 32 // 256) * 256  # handed out in steps of 256
    # Each of the four parts of a multiprocessor has a quarter of the registers for its own warps.
    by_registers = limits.registers // 4 // a_warp * 4 // warps
    by_shared = limits.shared // max(shared, LEAST_SHARED)
    return min(limits.blocks, limits.threads // (warps * 32), by_registers, by_shared)
