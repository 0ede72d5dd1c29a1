"""`pytorch_synthetic_benchmark.py` with hvdfilter.

Run it by `mpirun -np 2 python filtered_synthetic_benchmark.py`. An epoch in full is the steps of an
iteration, and what agreeing on its mask costs is in the time. The ids are those of a set as large;
all of its batches look the same, but for an epoch's last, which counts as the images it holds.
"""

import argparse
import timeit

import horovod.torch as hvd
import numpy as np
import torch
from torchvision import models

import hvdfilter as hf

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--fp16-allreduce", action="store_true")
parser.add_argument("--model", default="resnet50", help="of torchvision.models")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--num-warmup-batches", type=int, default=10)
parser.add_argument("--num-batches-per-iter", type=int, default=10)
parser.add_argument("--num-iters", type=int, default=10)
parser.add_argument("--no-cuda", action="store_true")
parser.add_argument("--use-adasum", action="store_true")
args = parser.parse_args()
args.cuda = not args.no_cuda and torch.cuda.is_available()

hvd.init()
if args.cuda:
    torch.cuda.set_device(hvd.local_rank())
    torch.backends.cudnn.benchmark = True
device = torch.device("cuda" if args.cuda else "cpu")

model = getattr(models, args.model)().to(device)
# Adasum needs no larger rate for more ranks, but for those that NCCL sums up before.
lr_scaler = hvd.size() if not args.use_adasum else 1
if args.use_adasum and args.cuda and hvd.nccl_built():
    lr_scaler = hvd.local_size()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01 * lr_scaler)
optimizer = hvd.DistributedOptimizer(
    optimizer,
    named_parameters=model.named_parameters(),
    compression=hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none,
    op=hvd.Adasum if args.use_adasum else hvd.Average,
)
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
hvd.broadcast_optimizer_state(optimizer, root_rank=0)

data = torch.randn(args.batch_size, 3, args.image_size, args.image_size).to(device)
target = torch.randint(1000, (args.batch_size,)).to(device)

filt = hf.Filter(args.batch_size * args.num_batches_per_iter * hvd.size(), epochs=1000)


def batches():
    for epoch in range(filt.epochs):
        filt.begin_epoch(epoch, optimizer)
        yield from torch.tensor(list(filt.sampler())).split(args.batch_size)


def benchmark_step():
    trained.append(next(drawn))
    optimizer.zero_grad()
    loss = filt.loss(model(data[: len(trained[-1])]), target[: len(trained[-1])], trained[-1])
    loss.backward()
    optimizer.step()


def log(line):
    if hvd.rank() == 0:
        print(line, flush=True)


kind = "GPU" if args.cuda else "CPU"
log(f"{args.model}, batches of {args.batch_size} on {hvd.size()} {kind}s")
drawn, trained = batches(), []
timeit.timeit(benchmark_step, number=args.num_warmup_batches)
rates = []
for number in range(args.num_iters):
    seconds = timeit.timeit(benchmark_step, number=args.num_batches_per_iter)
    rates.append(sum(map(len, trained[-args.num_batches_per_iter :])) / seconds)
    log(f"iteration {number}: {rates[-1]:.1f} images/s a {kind}")
mean, spread = np.mean(rates), 1.96 * np.std(rates)
log(f"images/s a {kind}: {mean:.1f} +- {spread:.1f}")
log(f"images/s on {hvd.size()} {kind}s: {hvd.size() * mean:.1f} +- {hvd.size() * spread:.1f}")
