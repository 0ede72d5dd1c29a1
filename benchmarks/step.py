"""What a step costs with a Filter beside the same step without one, in Python and in all.

    python -m benchmarks.step              # a world of one
    mpirun -np 2 python -m benchmarks.step # with the flag that the ranks exchange

The logits are a leaf, so a step is the loss and its backward and nothing else. Before each step
the ranks wait for each other, off the clock, as the allreduce of a real step has them do. Turns
with and without alternate; the clock is the CPU time of the thread that trains. The difference of
the medians is the overhead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

import hvdfilter as hf
from benchmarks.timing import Timing
from hvdfilter.agreement import Collective

SAMPLES = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--steps", type=int, default=200, help="of one variant's turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = hf.init()
    for row in measure(options.batch_size, options.classes, options.rounds, options.steps):
        if world.rank == 0:
            print(json.dumps(row | {"ranks": world.size, "batch": options.batch_size}))


def measure(batch: int, classes: int, rounds: int, steps: int) -> list[dict[str, object]]:
    """Collective. One row a pair of variants: microseconds without, with, and between."""
    logits = torch.randn(batch, classes, requires_grad=True)
    losses = torch.rand(batch, requires_grad=True)
    labels = torch.randint(0, classes, (batch,))
    ids = torch.randperm(SAMPLES)[:batch]
    # Policies that note what they always note and hide nothing: the same ids come again and again.
    nothing_hidden = hf.policies.make("kakurenbo", warmup=rounds + 1)
    scored = hf.Filter(SAMPLES, nothing_hidden, epochs=rounds + 1)
    everything = hf.policies.make("loss", keep=1.0)
    own = hf.Filter(SAMPLES, everything, epochs=rounds + 1) if scored.world.size == 1 else scored
    sure, right = torch.ones(batch), torch.ones(batch, dtype=torch.bool)
    given = {} if own is not scored else {"confidence": sure, "correct": right}
    pairs: dict[str, tuple[torch.Tensor, Callable[[], torch.Tensor], Callable[[], torch.Tensor]]]
    pairs = {
        "loss": (
            logits,
            lambda: F.cross_entropy(logits, labels),
            lambda: scored.loss(logits, labels, ids),
        ),
        "update": (losses, losses.mean, lambda: own.update(losses, ids, **given)),
    }
    seconds: dict[tuple[str, int], list[float]] = {}
    for epoch in range(rounds + 1):  # the first warms up
        for filt in {scored, own}:
            filt.begin_epoch(epoch)
        for name, (leaf, *variants) in pairs.items():
            for which, step in enumerate(variants):
                took = [_timed(leaf, step, scored.world.collective) for _ in range(steps)]
                if epoch:
                    seconds.setdefault((name, which), []).append(statistics.median(took))
    rows = []
    for name in pairs:
        without, with_filter = (Timing.of(seconds[name, which]) for which in (0, 1))
        rows.append(
            {
                "what": name,
                "without_us": round(without.p50 * 1e6, 1),
                "with_us": round(with_filter.p50 * 1e6, 1),
                "overhead_us": round((with_filter.p50 - without.p50) * 1e6, 1),
                "overhead_p20_us": round((with_filter.p20 - without.p20) * 1e6, 1),
            }
        )
    return rows


def _timed(leaf: torch.Tensor, step: Callable[[], torch.Tensor], collective: Collective) -> float:
    collective.barrier()
    started = time.thread_time()
    leaf.grad = None
    step().backward()
    return time.thread_time() - started


if __name__ == "__main__":
    main()
