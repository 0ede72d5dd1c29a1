"""What collectives cost in a world that nobody has at hand: formulas, and their fit.

A message takes `alpha` seconds and each of its bytes `beta` more (Hockney 1994); a collective is a
number of such messages one after another, on all ranks at once (Thakur, Rabenseifner, Gropp 2005).
MPI chooses among algorithms by size; the cheapest stands for its choice. A link's rate is one way:
ranks send and receive at the same time. It knows nothing of ranks that wait for a core, so worlds
with more ranks than cores are fitted only where the link, not the core, is what they wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# How often Horovod looks for gradients to send, in seconds.
CYCLE = 1e-3


class Network(NamedTuple):
    """alpha: seconds a message. beta: seconds a byte of it."""

    alpha: float
    beta: float


def allreduce(size: float, ranks: int, net: Network) -> float:
    """Seconds for `size` bytes on each of `ranks` ranks: recursive doubling, or a ring."""
    if ranks == 1:
        return 0.0
    rounds, share = math.ceil(math.log2(ranks)), (ranks - 1) / ranks
    doubling = rounds * (net.alpha + size * net.beta)
    ring = 2 * (ranks - 1) * net.alpha + 2 * share * size * net.beta
    # Rabenseifner's: halves are reduced, then gathered.
    halving = 2 * rounds * net.alpha + 2 * share * size * net.beta
    return min(doubling, ring, halving)


def gradients(size: float, ranks: int, net: Network) -> float:
    """Seconds of Horovod's allreduce: its cycle, its ranks' word that all are ready, the bytes."""
    return CYCLE + 2 * allreduce(64, ranks, net) + allreduce(size, ranks, net)


def ring_allreduce(size: float, ranks: int, net: Network) -> float:
    """Seconds of the ring that Horovod and NCCL are named for, whatever else would be cheaper."""
    return 2 * (ranks - 1) * (net.alpha + size / ranks * net.beta)


def hierarchical_allreduce(
    size: float, hosts: int, local: int, across: Network, within: Network
) -> float:
    """Reduce-scatter on each host, an allreduce of every part across hosts, allgather on each.

    All ranks of a host share its link, so that a part's turn there takes as long as the whole.
    """
    inside = (local - 1) * (within.alpha + size / local * within.beta)
    shared = Network(across.alpha, across.beta * local)
    return 2 * inside + allreduce(size / local, hosts, shared)


def allgather(size: float, ranks: int, net: Network) -> float:
    """Seconds for `size` bytes from each rank: Bruck's rounds, whose bytes are the ring's."""
    if ranks == 1:
        return 0.0
    return math.ceil(math.log2(ranks)) * net.alpha + size * (ranks - 1) * net.beta


def alltoall(size: float, ranks: int, net: Network) -> float:
    """Seconds for `size` bytes on each rank, dealt out to all: pairs, or Bruck's rounds."""
    if ranks == 1:
        return 0.0
    pairs = (ranks - 1) * net.alpha + size * (ranks - 1) / ranks * net.beta
    rounds = math.ceil(math.log2(ranks))
    return min(pairs, rounds * (net.alpha + size / 2 * net.beta))


def agree(samples: float, ranks: int, net: Network, own: float) -> float:
    """Seconds of an agreement: the radix rounds and the mask. own: of work, a sample."""
    small = 2 * allreduce(64, ranks, net) + 3 * allreduce(16384, ranks, net)
    return own * samples / ranks + small + allgather(samples / 8 / ranks, ranks, net)


def exchange(samples: float, ranks: int, net: Network, own: float) -> float:
    """Seconds of an exchange of 12 bytes a sample. own: of work, a sample."""
    parts = alltoall(12 * samples / ranks, ranks, net) + alltoall(8 * ranks, ranks, net)
    return own * samples / ranks + allreduce(16, ranks, net) + parts


Model = Callable[[float, int, Network], float]
MODELS: dict[str, Model] = {
    "allreduce": allreduce,
    "gradients": gradients,
    "allgather": allgather,
    "alltoall": alltoall,
}


def fit(points: Sequence[dict[str, Any]]) -> Network:
    """The network under which `points` (what, bytes, ranks, p50_ms) have the least error.

    Of the logarithm, so that small messages count as much as large ones: a search over both
    parameters, ever finer.
    """
    seconds = np.log([point["p50_ms"] / 1e3 for point in points])

    def error(alpha: float, beta: float) -> float:
        net = Network(10**alpha, 10**beta)
        said = [MODELS[p["what"]](p["bytes"], p["ranks"], net) for p in points]
        return float(np.abs(np.log(said) - seconds).mean())

    alpha, beta, step = -4.5, -8.5, 1.0
    while step > 1e-3:
        moves = [step / 2 * i for i in range(-4, 5)]
        around = [(alpha + a, beta + b) for a in moves for b in moves]
        best = min(around, key=lambda at: error(*at))
        if best == (alpha, beta):
            step /= 2
        alpha, beta = best
    return Network(10**alpha, 10**beta)
