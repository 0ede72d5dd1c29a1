"""A plain Horovod training script, before hvdfilter: `mpirun -np 2 python plain_horovod.py`.

`filtered_horovod.py` is the same script with the lines that adopt hvdfilter.
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

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

sampler = DistributedSampler(train_set, hvd.size(), hvd.rank())
loader = DataLoader(train_set, 32, sampler=sampler)
for epoch in range(epochs):
    sampler.set_epoch(epoch)
    for images, targets in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()

with torch.no_grad():
    accuracy = (model(x[1437:]).argmax(1) == y[1437:]).float().mean().item()
if hvd.rank() == 0:
    print(f"test accuracy {accuracy:.4f}")
