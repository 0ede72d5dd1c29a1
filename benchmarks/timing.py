"""Times variants of one piece of work side by side: interleaved rounds, percentiles, no means.

On a CPU the clock is the wall's. On a GPU each variant is captured into a CUDA graph that runs it
over several copies of its input, together larger than the L2 cache, and events time the replay.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# A sample is one call, or as many as last this long, divided.
SHORTEST_SAMPLE = 1e-4
# Samples of one variant's turn on a CPU: as many as last this long, at least one.
TURN = 2e-3
# Inputs of one GPU variant together, at least: twice the largest L2 there is.
ROTATED_BYTES = 256 << 20

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the 20th, 50th and 80th percentile over the rounds."""

    p20: float
    p50: float
    p80: float

    @staticmethod
    def of(samples: Sequence[float]) -> Timing:
        """The percentiles of these samples."""
        ordered = sorted(samples)
        return Timing(*(ordered[round((len(ordered) - 1) * q)] for q in (0.2, 0.5, 0.8)))


def time_cpu(
    variants: dict[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Every variant once a round, in turn, so that what disturbs the machine disturbs all.

    clock: the wall's, or `time.process_time` where others are at work on the machine.

    A turn begins with a trimmed heap and one call that is not timed: otherwise a variant's first
    free may hand back what the one before it left, for up to 8 ms.
    """
    trim_heap = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    calls, turns = {}, {}
    for name, work in variants.items():
        work()  # warm caches, compile
        start = clock()
        work()
        took = clock() - start
        calls[name] = max(1, round(SHORTEST_SAMPLE / max(took, 1e-7)))
        turns[name] = max(1, round(TURN / (took * calls[name])))
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            if trim_heap is not None:
                trim_heap(0)
            work()
            for _ in range(turns[name]):
                start = clock()
                for _ in range(calls[name]):
                    work()
                samples[name].append((clock() - start) / calls[name])
    return {name: Timing.of(values) for name, values in samples.items()}


def time_cuda(variants: dict[str, list[Work]], rounds: int) -> dict[str, Timing]:
    """Each variant is a list of calls on different inputs, captured into one graph."""
    graphs: dict[str, tuple[torch.cuda.CUDAGraph, int]] = {}
    for name, works in variants.items():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                works[0]()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for work in works:
                work()
        graphs[name] = graph, len(works)
    samples: dict[str, list[float]] = {name: [] for name in variants}
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(rounds):
        for name, (graph, calls) in graphs.items():
            graph.replay()
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            samples[name].append(begin.elapsed_time(end) / 1e3 / calls)
    return {name: Timing.of(values) for name, values in samples.items()}


def copy_bandwidth(device: torch.device, rounds: int) -> float:
    """Bytes a second, read and written, of copying a tensor far larger than any cache."""
    source = torch.randn(64 << 20, device=device)
    target = torch.empty_like(source)

    def copy() -> object:
        return target.copy_(source)

    if device.type == "cuda":
        timing = time_cuda({"copy": [copy]}, rounds)["copy"]
    else:
        timing = time_cpu({"copy": copy}, rounds)["copy"]
    return 2 * source.nbytes / timing.p50
