"""The world that `benchmarks.scaling` is set against: torch and Horovod, as a plain user runs them.

The same model, images, batch, flags and steps, without hvdfilter's part of any of them. Nothing of
hvdfilter is imported before `hvd.init()`, so that MPI starts as it would without it.
"""

from __future__ import annotations

import argparse
import json
import time

import horovod.torch as hvd
import torch
from torch.nn import functional as F

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet9")
    for flag, default in (("batch-size", 32), ("image-size", 32), ("num-batches-per-iter", 10)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--num-warmup-batches", type=int, default=10)
    parser.add_argument("--num-iters", type=int, default=10)
    options = parser.parse_args()
    hvd.init()
    from hvdfilter import models  # the network alone; MPI runs by now
    from hvdfilter.data import Normalize, open_dataset

    torch.manual_seed(0)
    count = options.num_batches_per_iter * options.batch_size * hvd.size()
    size = options.image_size
    images = open_dataset(f"synthetic:{count},3,{size},{size},{CLASSES}", train=True)
    x, y = images.batch(range(hvd.rank(), count, hvd.size()))
    batches = list(zip(x.split(options.batch_size), y.split(options.batch_size), strict=True))
    model = models.make(options.model, 3, CLASSES, size)
    prepare = Normalize(images.mean, images.std)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)

    warmup = -(-options.num_warmup_batches // options.num_batches_per_iter)
    rates = []
    for epoch in range(warmup + options.num_iters):
        started = time.perf_counter()
        for images_, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(prepare(images_)), labels).backward()
            optimizer.step()
        hvd.allreduce(torch.zeros(1), name="end of the epoch")
        if epoch >= warmup:
            rates.append(count / (time.perf_counter() - started))
    if hvd.rank() == 0:
        per_rank = [rate / hvd.size() for rate in rates]
        row = {"what": "plain Horovod", "ranks": hvd.size(), "hidden": 0.0}
        print(json.dumps([row | {"img_per_sec_per_rank": per_rank, "samples_per_sec": rates}]))


if __name__ == "__main__":
    main()
