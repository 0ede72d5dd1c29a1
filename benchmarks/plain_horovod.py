"""The world that `benchmarks.scaling` is set against: torch and Horovod, as a plain user runs them.

The same model, images, batch, flags and steps, without hvdfilter's part of any of them. Nothing of
hvdfilter is imported before `hvd.init()`, so that MPI starts as it would without it.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

CLASSES = 10


class Work(NamedTuple):
    """What every rank does: `batch` samples a step, `samples` an epoch on all ranks together."""

    batch: int
    samples: int
    warmup: int

    @staticmethod
    def of(options: argparse.Namespace, ranks: int) -> Work:
        """Weak scaling has a batch for each rank, strong scaling one that they divide."""
        batch, steps = options.batch_size, options.num_batches_per_iter
        if options.strong:
            if batch % ranks:
                raise SystemExit(f"--batch-size {batch} cannot be divided among {ranks} ranks")
            batch //= ranks
        warmup = -(-options.num_warmup_batches // steps)
        return Work(batch, steps * batch * ranks, warmup)


class TimedStep:
    """An optimiser's step; `waited` are the seconds it waited for gradients to be averaged."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer, self.waited = optimizer, 0.0

    def __call__(self) -> None:
        """Average the gradients, then step."""
        if not hasattr(self._optimizer, "synchronize"):  # a world of one
            self._optimizer.step()
            return
        started = time.perf_counter()
        self._optimizer.synchronize()
        self.waited += time.perf_counter() - started
        with self._optimizer.skip_synchronize():
            self._optimizer.step()


def main() -> None:
    import horovod.torch as hvd

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet9")
    for flag, default in (("batch-size", 32), ("image-size", 32), ("num-batches-per-iter", 10)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--num-warmup-batches", type=int, default=10)
    parser.add_argument("--num-iters", type=int, default=10)
    parser.add_argument("--fp16-allreduce", action="store_true")
    parser.add_argument("--strong", action="store_true")
    parser.add_argument("--no-cuda", action="store_true")
    parser.add_argument("--what", default="plain Horovod", help="what the table calls it")
    options = parser.parse_args()
    hvd.init()
    from hvdfilter import models  # the network alone; MPI runs by now
    from hvdfilter.data import Normalize, open_dataset

    work = Work.of(options, hvd.size())
    torch.manual_seed(0)
    size = options.image_size
    images = open_dataset(f"synthetic:{work.samples},3,{size},{size},{CLASSES}", train=True)
    x, y = images.batch(range(hvd.rank(), work.samples, hvd.size()))
    batches = list(zip(x.split(work.batch), y.split(work.batch), strict=True))
    device = torch.device("cpu")
    if torch.cuda.is_available() and not options.no_cuda:
        device = torch.device("cuda", hvd.local_rank() % torch.cuda.device_count())
    model = models.make(options.model, 3, CLASSES, size).to(device)
    prepare = Normalize(images.mean, images.std).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    half = hvd.Compression.fp16 if options.fp16_allreduce else hvd.Compression.none
    named = model.named_parameters()
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=named, compression=half)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)

    step = TimedStep(optimizer)
    rates: list[float] = []
    for epoch in range(work.warmup + options.num_iters):
        if epoch == work.warmup:
            step.waited = 0.0
        started = time.perf_counter()
        for images_, labels in batches:
            images_, labels = images_.to(device), labels.to(device)
            optimizer.zero_grad()
            F.cross_entropy(model(prepare(images_)), labels).backward()
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        hvd.allreduce(torch.zeros(1), name="end of the epoch")
        if epoch >= work.warmup:
            rates.append(work.samples / (time.perf_counter() - started))
    if hvd.rank() == 0:
        seconds = sum(work.samples / rate for rate in rates)
        gradient = sum(p.numel() * (2 if options.fp16_allreduce else 4) for p in model.parameters())
        row = {
            **{"what": options.what, "ranks": hvd.size(), "hidden": 0.0},
            "img_per_sec_per_rank": [rate / hvd.size() for rate in rates],
            "samples_per_sec": rates,
            "communication_share": step.waited / seconds if hvd.size() > 1 else 0.0,
            "samples": work.samples,
            "steps": len(batches),
            "gradient_bytes": gradient if hvd.size() > 1 else 0,
            "gradient_bytes_saved": 0,
            "seconds": {"gradients": step.waited / options.num_iters},
        }
        print(json.dumps([row]))


if __name__ == "__main__":
    main()
