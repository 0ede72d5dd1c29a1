"""What collectives cost in a world that nobody has at hand: formulas, and their fit.

A message takes `alpha` seconds and each of its bytes `beta` more (Hockney 1994); a collective is a
number of such messages one after another, on all ranks at once (Thakur, Rabenseifner, Gropp 2005).
Each has an `alpha` and a `beta` of its own: one that sends and receives at once gets less of a link
each way. It knows nothing of ranks that wait for a core, so worlds
with more ranks than cores are fitted only where the link, not the core, is what they wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# How often Horovod looks for gradients to send, in seconds.
CYCLE = 1e-3


class Network(NamedTuple):
    """alpha: seconds a message. beta: seconds a byte of it."""

    alpha: float
    beta: float


# Of each collective: they use a link in unlike ways.
Networks = Mapping[str, Network]
Model = Callable[[float, int, Network], float]


def allreduce(size: float, ranks: int, net: Network) -> float:
    """Seconds for `size` bytes on each of `ranks` ranks, by recursive doubling.

    That is what Open MPI 4.1 was seen to do over TCP, at every size: on three ranks, which are no
    power of two, it takes three turns of all bytes, on four two.
    """
    if ranks == 1:
        return 0.0
    rounds = math.floor(math.log2(ranks))
    if 2**rounds < ranks:  # the ranks too many hand theirs over before, and are told after
        rounds += 2
    return rounds * (net.alpha + size * net.beta)


def gradients(size: float, ranks: int, net: Network) -> float:
    """Seconds of Horovod's allreduce: its cycle, its ranks' word that all are ready, the bytes."""
    return CYCLE + 2 * allreduce(64, ranks, net) + allreduce(size, ranks, net)


def ring_allreduce(size: float, ranks: int, net: Network) -> float:
    """Seconds of the ring that Horovod and NCCL are named for, whatever else would be cheaper."""
    return 2 * (ranks - 1) * (net.alpha + size / ranks * net.beta)


def hierarchical_allreduce(
    size: float,
    hosts: int,
    local: int,
    across: Network,
    within: Network,
    between: Model = allreduce,
) -> float:
    """Reduce-scatter on each host, an allreduce of every part across hosts, allgather on each.

    All ranks of a host share its link, so that a part's turn there takes as long as the whole.
    between: how the hosts do it.
    """
    inside = (local - 1) * (within.alpha + size / local * within.beta)
    shared = Network(across.alpha, across.beta * local)
    return 2 * inside + between(size / local, hosts, shared)


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


def agree(samples: float, ranks: int, nets: Networks, own: float) -> float:
    """Seconds of an agreement: the radix rounds and the mask. own: of work, a sample."""
    small = 2 * allreduce(64, ranks, nets["allreduce"])
    radix = 3 * allreduce(16384, ranks, nets["allreduce"])
    mask = allgather(samples / 8 / ranks, ranks, nets["allgather"])
    return own * samples / ranks + small + radix + mask


def exchange(samples: float, ranks: int, nets: Networks, own: float) -> float:
    """Seconds of an exchange of 12 bytes a sample. own: of work, a sample."""
    counts = alltoall(8 * ranks, ranks, nets["alltoall"])
    scores = alltoall(12 * samples / ranks, ranks, nets["alltoall"])
    return own * samples / ranks + allreduce(16, ranks, nets["allreduce"]) + counts + scores


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
    if not points:
        raise ValueError("a fit takes points")
    seconds = np.log([point["p50_ms"] / 1e3 for point in points])

    def error(alpha: float, beta: float) -> float:
        net = Network(10**alpha, 10**beta)
        said = [MODELS[p["what"]](p["bytes"], p["ranks"], net) for p in points]
        return float(np.abs(np.log(said) - seconds).mean())

    at, step = (-4.5, -8.5), 1.0
    least = error(*at)
    moves = [(a / 2, b / 2) for a in range(-4, 5) for b in range(-4, 5)]
    while step > 1e-3:
        around = [(at[0] + step * a, at[1] + step * b) for a, b in moves]
        found, best = min((error(*there), there) for there in around)
        if found < least:
            least, at = found, best
        else:
            step /= 2
    alpha, beta = at
    return Network(10**alpha, 10**beta)
