"""timm's loop, alone or by `torchrun --nproc_per_node 2 filtered_timm.py`.

Model, optimizer, schedule, averaged weights and meters are timm's, used as its train.py uses them.
A schedule that counts updates is told how far the run has come, whatever the epochs hide.
"""

import argparse

import timm
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from timm import optim, scheduler, utils
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--model", default="test_resnet")
args = parser.parse_args()

if dist.is_torchelastic_launched():
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
world = hf.init()
utils.random_seed(0, 0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
x, y = F.interpolate(x, 16), torch.tensor(labels)
train_set = TensorDataset(x[:1437], y[:1437])
net = timm.create_model(args.model, in_chans=1, num_classes=10).to(world.device)
ema = utils.ModelEmaV3(net, decay=0.9)
model = DistributedDataParallel(net) if world.size > 1 else net
optimizer = optim.create_optimizer_v2(net, opt="adamw", lr=0.002, weight_decay=0.05)

filt = hf.Filter(len(train_set), policy="kakurenbo", epochs=args.epochs)
loader = DataLoader(hf.Indexed(train_set), 32, sampler=filt.sampler())
updates = args.epochs * len(loader)  # of epochs in full
schedule, _ = scheduler.create_scheduler_v2(
    optimizer, sched="cosine", num_epochs=args.epochs, warmup_epochs=1, min_lr=1e-6,
    step_on_epochs=False, updates_per_epoch=len(loader),
)  # fmt: skip
for epoch in range(args.epochs):
    filt.begin_epoch(epoch, optimizer)
    model.train()
    losses = utils.AverageMeter()
    for ids, images, targets in loader:
        images, targets = images.to(world.device), targets.to(world.device)
        loss = filt.loss(model(images), targets, ids, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        utils.dispatch_clip_grad(model.parameters(), 1.0)
        optimizer.step()
        ema.update(net)
        losses.update(loss.item(), len(ids))
        schedule.step_update(round(filt.progress * updates))
    schedule.step(epoch + 1)
filt.end_epoch()

ema.eval()
with torch.no_grad():
    output = ema(x[1437:].to(world.device)).cpu()
if world.rank == 0:
    accuracy = utils.accuracy(output, y[1437:])[0].item() / 100
    rate = optimizer.param_groups[0]["lr"]
    print(f"loss {losses.avg:.4f}, test accuracy {accuracy:.4f}, ", end="")
    print(f"hidden {filt.hidden}, last rate {rate:.2g}")
if dist.is_initialized():
    dist.destroy_process_group()
