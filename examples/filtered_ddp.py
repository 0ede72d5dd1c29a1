"""Data-parallel training by torch itself: `torchrun --nproc_per_node 2 filtered_ddp.py`.

torch.distributed is initialised before the first `hf.Filter`; all else is as under Horovod.
"""

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
device = hf.init().device
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
y = torch.tensor(labels)
train_set = TensorDataset(x[:1437], y[:1437])
net = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(64 * 36, 10),
).to(device)  # fmt: skip
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02 * dist.get_world_size(), momentum=0.9)

filt = hf.Filter(len(train_set), policy="kakurenbo", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 32, sampler=filt.sampler())
for epoch in range(epochs):
    filt.begin_epoch(epoch, optimizer)
    for ids, images, targets in loader:
        optimizer.zero_grad()
        loss = filt.loss(model(images.to(device)), targets.to(device), ids)
        loss.backward()
        optimizer.step()
filt.end_epoch()

with torch.no_grad():
    found = net(x[1437:].to(device)).argmax(1).cpu()
if dist.get_rank() == 0:
    print(f"test accuracy {(found == y[1437:]).float().mean():.4f}")
dist.destroy_process_group()
