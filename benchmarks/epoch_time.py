"""What an epoch costs: a Filter that hides nothing, the share saved by hiding, a re-scoring pass.

    python -m benchmarks.epoch_time                 # a world of one
    mpirun -np 2 python -m benchmarks.epoch_time    # with Horovod

Variants of one loop take turns on the same model, batches and data, an epoch each, and the clock
is the CPU time of all ranks' processes, all threads. Each has a network and an optimiser of its
own, of the same first weights.

- `plain`: torch and Horovod as in `benchmarks.plain_horovod`, a DataLoader and a cross entropy.
- `full`: the same with a Filter that hides nothing; over `plain` it should cost at most 1.02.
- `noted`: hides nothing either, but scores are noted and exchanged.
- `random`: hides a share and looks no more at it. Time saved against `full` over the share hidden
  should be at least 0.9.
- `rescored`: hides the same number by lowest loss and re-scores them; at least 0.75.
- the re-scoring pass itself, by the sample, over a training pass of `full`: at most 0.35.

A ratio is of two turns of the same round; reported are its 20th, 50th and 80th percentile over
the rounds.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.machine import describe
from benchmarks.scaling import FixedShare
from benchmarks.timing import Timing
from hvdfilter import Filter, models, policies
from hvdfilter.agreement import KeepMask
from hvdfilter.data import ArrayImages, Images, Normalize, make_loader, open_dataset
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.training import ring
from hvdfilter.training.forward import forward_only
from hvdfilter.training.loop import FORWARD_BATCHES
from hvdfilter.training.network import Network
from hvdfilter.world import World

CLASSES = 10
# CPU seconds of the epoch, and of the re-scoring pass within it.
Seconds = tuple[float, float]
TARGETS = {
    "full / plain": "<= 1.02",
    "noted / plain": "",
    "random: saved / hidden": ">= 0.9",
    "rescored: saved / hidden": ">= 0.75",
    "re-scoring / training, a sample": "<= 0.35",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(sys.modules[__name__]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="resnet9:16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=20, help="steps of an unpruned epoch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--hide", type=float, default=0.3)
    parser.add_argument("--csv", type=Path, help="append the figures to this table")
    options = parser.parse_args()
    world = ring.start()
    torch.set_num_threads(1)  # after it: it takes all that a rank has
    rows = measure(options, world)
    if world.rank == 0:
        for row in rows:
            print(json.dumps(row))
        if options.csv:
            write(options.csv, rows)


def measure(options: argparse.Namespace, world: World) -> list[dict[str, Any]]:
    """Collective. One row a ratio."""
    turns = variants(options, world)
    seconds: dict[str, list[Seconds]] = {name: [] for name in turns}
    for number in range(options.rounds + 2):  # the first two warm up: they hide by no score
        names = list(turns)
        if number % 2:
            names.reverse()
        for name in names:
            spent = np.array(turns[name](number))
            total, pass_ = world.collective.allreduce(spent, "sum")
            if number >= 2:
                seconds[name].append((float(total), float(pass_)))
    common = {
        "ranks": world.size,
        "model": options.model,
        "batch": options.batch_size,
        "hide": options.hide,
        "rounds": options.rounds,
    }
    plain = Timing.of([epoch for epoch, _ in seconds["plain"]])
    return [
        {"what": what, **percentiles(values), "target": TARGETS[what], **common}
        for what, values in ratios(seconds, options.hide).items()
    ] + [{"what": "plain, CPU s an epoch", **percentiles(plain), "target": "", **common}]


def ratios(seconds: dict[str, list[Seconds]], hide: float) -> dict[str, Sequence[float]]:
    """The ratios of every round."""
    plain, full, noted, random, rescored = (
        np.array(seconds[name]) for name in ("plain", "full", "noted", "random", "rescored")
    )
    return {
        "full / plain": full[:, 0] / plain[:, 0],
        "noted / plain": noted[:, 0] / plain[:, 0],
        "random: saved / hidden": (1 - random[:, 0] / full[:, 0]) / hide,
        "rescored: saved / hidden": (1 - rescored[:, 0] / full[:, 0]) / hide,
        "re-scoring / training, a sample": rescored[:, 1] / hide / full[:, 0],
    }


def percentiles(values: Timing | Sequence[float]) -> dict[str, float]:
    """p20, p50 and p80, rounded for a person."""
    timing = values if isinstance(values, Timing) else Timing.of(values)
    return {name: round(getattr(timing, name), 4) for name in ("p20", "p50", "p80")}


def variants(options: argparse.Namespace, world: World) -> dict[str, Callable[[int], Seconds]]:
    """What trains one epoch, by name: called with its number, on all ranks."""
    samples = options.batches * options.batch_size * world.size
    size = options.image_size
    drawn = open_dataset(f"synthetic:{samples},3,{size},{size},{CLASSES}", train=True)
    data, _ = drawn.batch(range(samples))  # made once: data loading is not measured
    images = ArrayImages(data, drawn.labels, drawn.description)
    by_loss = FixedShare(hide=0.0)
    filters: dict[str, policies.Policy] = {
        "full": policies.make("full"),
        "noted": by_loss,
        "random": policies.make("random", keep=1 - options.hide),
        "rescored": FixedShare(hide=options.hide),
    }
    turns = {"plain": _plain(images, options, world)}
    for name, policy in filters.items():
        turns[name] = _filtered(images, policy, options, world)
    return turns


def _network(
    images: Images, options: argparse.Namespace, world: World
) -> tuple[torch.nn.Module, Normalize, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = models.make(options.model, 3, CLASSES, options.image_size).to(world.device)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer = ring.distribute(optimizer, model, world)
    ring.broadcast(model, optimizer, world)
    return model, Normalize(images.mean, images.std).to(world.device), optimizer


def _plain(images: Images, options: argparse.Namespace, world: World) -> Callable[[int], Seconds]:
    model, prepare, optimizer = _network(images, options, world)
    everything = KeepMask.full(len(images))
    sampler = ShardSampler(everything, rank=world.rank, size=world.size, seed=0)
    loader = make_loader(images, sampler, options.batch_size)

    def epoch(number: int) -> Seconds:
        world.collective.barrier()
        started = time.process_time()
        sampler.set_epoch(number)
        for _, x, y in loader:
            x, y = x.to(world.device), y.to(world.device)
            optimizer.zero_grad()
            F.cross_entropy(model(prepare(x)), y).backward()
            optimizer.step()
        return time.process_time() - started, 0.0

    return epoch


def _filtered(
    images: Images, policy: policies.Policy, options: argparse.Namespace, world: World
) -> Callable[[int], Seconds]:
    model, prepare, optimizer = _network(images, options, world)
    filt = Filter(len(images), policy, epochs=options.rounds + 2, world=world)
    loader = make_loader(images, filt.sampler(), options.batch_size)
    hidden = make_loader(images, filt.hidden_sampler(), FORWARD_BATCHES * options.batch_size)
    network = Network(prepare, model)

    def epoch(number: int) -> Seconds:
        world.collective.barrier()
        started = time.process_time()
        filt.begin_epoch(number, optimizer)
        for ids, x, y in loader:
            x, y = x.to(world.device), y.to(world.device)
            optimizer.zero_grad()
            filt.loss(model(prepare(x)), y, ids).backward()
            optimizer.step()
        trained = time.process_time()
        if policy.rescores and filt.hidden:
            filt.rescore(forward_only(network, options.model, world.device), hidden)
        rescored = time.process_time() - trained
        filt.end_epoch()
        return time.process_time() - started, rescored

    return epoch


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to the table, below the machine and the versions where it is new."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if new:
            file.write(f"# {describe(torch.device('cpu'))}\n")
            table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
