"""How throughput scales with the ranks, with and without pruning.

Takes the flags and prints the "img/sec" lines of Horovod's synthetic benchmark. Run it under a
launcher to measure that world (`mpirun -np 8 python -m benchmarks.scaling`), or alone with
`--ranks 1 2 4` to start these worlds in turn, each beside plain Horovod's, and see the efficiency.

An iteration is one epoch of `--num-batches-per-iter` steps over synthetic images, from the start
of the agreement to the end of the exchange, hidden samples re-scored: nothing of the method is
left out of the time. The pruned run hides the `--hide` share of lowest loss, whatever the scores,
so that the share is known. "img/sec" counts trained images; "samples/sec" counts the images of
the set an epoch went through, hidden ones included, which is what decides the time of a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from benchmarks.launching import MEMORY
from benchmarks.plain_horovod import TimedStep, Work
from benchmarks.scaling_sweep import sweep
from hvdfilter import Filter, init, models, policies
from hvdfilter.data import Normalize, make_loader, open_dataset
from hvdfilter.training import ring
from hvdfilter.world import World

CLASSES = 10


@dataclass(frozen=True)
class FixedShare(policies.Policy):
    """Hide exactly the share of lowest loss and re-score it: KAKURENBO without its way back."""

    name: ClassVar[str] = "benchmark-fixed-share"
    columns: ClassVar[tuple[str, ...]] = ("loss", "confidence", "correct", "age")
    rescores: ClassVar[bool] = True
    hide: float = 0.3

    def plan(self, view: policies.View) -> policies.Plan:
        """The lowest losses, whatever the confidence."""
        hidden = int(self.hide * view.num_samples)
        return policies.Plan(view.column("loss"), view.num_samples - hidden)


def main() -> None:
    options = _options()
    if options.ranks:
        sweep(options)
        return
    world = init()
    if options.no_cuda:
        world = replace(world, device=torch.device("cpu"))
    results = [measure(options, world, hide) for hide in (0.0, options.hide)]
    if world.rank == 0 and options.json:
        print(json.dumps(results))


def measure(options: argparse.Namespace, world: World, hide: float) -> dict[str, Any]:
    """Throughput of this world when the share `hide` of the samples is hidden."""
    say = print if world.rank == 0 and not options.json else lambda *_: None
    work = Work.of(options, world.size)
    torch.manual_seed(0)
    size = options.image_size
    images = open_dataset(f"synthetic:{work.samples},3,{size},{size},{CLASSES}", train=True)
    model = models.make(options.model, 3, CLASSES, size).to(world.device)
    prepare = Normalize(images.mean, images.std).to(world.device)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer = ring.distribute(optimizer, model, world, fp16=options.fp16_allreduce)
    ring.broadcast(model, optimizer, world)
    policy = FixedShare(hide) if hide else "full"
    filt = Filter(work.samples, policy, epochs=work.warmup + options.num_iters, world=world)
    if world.device.type == "cpu":  # the whole set in memory: data loading is not measured
        images = _materialise(images)
    loader = make_loader(images, filt.sampler(), work.batch)

    unit = "GPU" if world.device.type == "cuda" else "rank"
    say(f"Model: {options.model}\nBatch size: {work.batch}\nNumber of {unit}s: {world.size}")
    say(f"Hidden: {hide:.0%}\nRunning warmup...")
    step = TimedStep(optimizer)
    trained, covered, steps, costs = [], [], 0, {}
    for epoch in range(filt.epochs):
        if epoch == work.warmup:
            say("Running benchmark...")
            filt.costs.take()
            step.waited = 0.0
        started = time.perf_counter()
        filt.begin_epoch(epoch, optimizer)
        steps = 0
        for ids, x, y in loader:
            x, y = x.to(world.device), y.to(world.device)
            optimizer.zero_grad()
            filt.loss(model(prepare(x)), y, ids).backward()
            step()
            steps += 1
        if filt.hidden:
            hidden = make_loader(images, filt.hidden_sampler(), work.batch)
            filt.rescore(torch.nn.Sequential(prepare, model), hidden)
        filt.end_epoch()
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        world.collective.barrier()
        seconds = time.perf_counter() - started
        if epoch >= work.warmup:
            trained.append(filt.mask.count / seconds / world.size)
            covered.append(work.samples / seconds)
            say(f"Iter #{epoch - work.warmup}: {trained[-1]:.1f} img/sec per {unit}")
    spent, sent = filt.costs.take()
    costs = {"gradients": step.waited, **spent}
    seconds = {part: value / options.num_iters for part, value in costs.items()}
    epoch_seconds = work.samples * statistics.fmean(1 / rate for rate in covered)
    talking = sum(seconds.get(part, 0.0) for part in ("gradients", "agreement", "exchange"))
    mean, spread = statistics.fmean(trained), 1.96 * statistics.pstdev(trained)
    say(f"Img/sec per {unit}: {mean:.1f} +-{spread:.1f}")
    total, margin = mean * world.size, spread * world.size
    say(f"Total img/sec on {world.size} {unit}(s): {total:.1f} +-{margin:.1f}")
    say(f"Samples/sec of the set: {statistics.median(covered):.1f} (median)")
    full_steps = options.num_batches_per_iter
    gradient, tensors = ring.gradient_traffic(model, world, options.fp16_allreduce)
    saved = full_steps - steps
    say(f"Waiting for gradients, agreement and exchange: {talking / epoch_seconds:.1%} of the time")
    say(
        f"Gradient bytes saved an epoch and rank: {saved * gradient:,} of {full_steps * gradient:,}"
    )
    say(f"Allreduce calls saved an epoch: {saved * tensors:,} of {full_steps * tensors:,}\n")
    return {
        "what": "hvdfilter",
        "ranks": world.size,
        "hidden": hide,
        "img_per_sec_per_rank": trained,
        "samples_per_sec": covered,
        "communication_share": talking / epoch_seconds,
        "steps": steps,
        "samples": work.samples,
        "steps_full": full_steps,
        "gradient_bytes": gradient,
        "gradient_bytes_saved": saved * gradient,
        "allreduce_calls_saved": saved * tensors,
        "seconds": seconds,
        "bytes_sent": {part: count / options.num_iters for part, count in sent.items()},
        "model": options.model,
        "batch_size": work.batch,
        "image_size": size,
        "device": str(world.device),
        "torch": torch.__version__,
    }


def _materialise(images: Any) -> Any:
    """The same images, generated once."""
    from hvdfilter.data.images import ArrayImages

    data, _ = images.batch(range(len(images)))
    return ArrayImages(data, images.labels, images.description)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet9", help="model to benchmark")
    parser.add_argument("--batch-size", type=int, default=32, help="batch size of each rank")
    parser.add_argument("--image-size", type=int, default=32, help="height and width of an image")
    parser.add_argument(
        "--num-batches-per-iter", type=int, default=10, help="steps of an unpruned epoch"
    )
    parser.add_argument(
        "--num-warmup-batches", type=int, default=10, help="steps before the measurement, at least"
    )
    parser.add_argument("--fp16-allreduce", action="store_true", help="allreduce halved gradients")
    parser.add_argument("--no-cuda", action="store_true", help="measure on the CPU")
    parser.add_argument("--num-iters", type=int, default=10, help="epochs measured")
    parser.add_argument("--hide", type=float, default=0.3, help="share hidden in the pruned run")
    parser.add_argument(
        "--strong",
        action="store_true",
        help="the ranks divide one batch, however many",
    )
    parser.add_argument("--ranks", type=int, nargs="+", help="start these worlds in turn")
    parser.add_argument(
        "--links",
        nargs="+",
        default=[MEMORY],
        help="between their ranks: memory, or a host for each rank and links of such a rate: "
        "unlimited, 1gbit, 100mbit, ... (Linux, as root)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="starts of each of these worlds")
    parser.add_argument("--threads", type=int, default=1, help="threads of each of their ranks")
    parser.add_argument("--csv", help="file for the table of these worlds")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of lines")
    return parser.parse_args()


if __name__ == "__main__":
    main()
