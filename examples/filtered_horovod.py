"""`plain_horovod.py` with hvdfilter: `mpirun -np 2 python filtered_horovod.py`.

The lines that differ are the sampler, the loader, the start of an epoch and the loss.
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

hvd.init()
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
y = torch.tensor(labels)
train_set = TensorDataset(x[:1437], y[:1437])
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(64 * 36, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.02 * hvd.size(), momentum=0.9)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)

filt = hf.Filter(len(train_set), policy="kakurenbo", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 32, sampler=filt.sampler())
for epoch in range(epochs):
    filt.begin_epoch(epoch, optimizer)
    for ids, images, targets in loader:
        optimizer.zero_grad()
        loss = filt.loss(model(images), targets, ids)
        loss.backward()
        optimizer.step()
filt.end_epoch()

with torch.no_grad():
    accuracy = (model(x[1437:]).argmax(1) == y[1437:]).float().mean().item()
if hvd.rank() == 0:
    print(f"test accuracy {accuracy:.4f}")
