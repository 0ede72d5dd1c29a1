"""A loss of one's own, here of a regression: `mpirun -np 2 python own_loss.py`.

`filt.update` takes the losses of the samples, one each, and returns their mean. A scheduler that
was built for epochs in full ends where it should although epochs get shorter.
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=40)
epochs = parser.parse_args().epochs

hvd.init()
torch.manual_seed(0)
x, y = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
x, y = x / x.std(0), (y - y.mean()) / y.std()
order = torch.randperm(len(x))
train, test = order[:354], order[354:]
train_set = TensorDataset(x[train], y[train])
model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)

filt = hf.Filter(len(train_set), policy="loss", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 16, sampler=filt.sampler())
hidden = DataLoader(hf.Indexed(train_set), 64, sampler=filt.hidden_sampler())
scheduler = filt.schedule(OneCycleLR(optimizer, 0.05, total_steps=epochs * len(loader)), loader)
for epoch in range(epochs):
    filt.begin_epoch(epoch, optimizer)
    for ids, inputs, targets in loader:
        optimizer.zero_grad()
        loss = filt.update(F.mse_loss(model(inputs), targets, reduction="none"), ids)
        loss.backward()
        optimizer.step()
        scheduler.step()
    filt.rescore(model, hidden, lambda b: (b[0], F.mse_loss(model(b[1]), b[2], reduction="none")))
filt.end_epoch()

with torch.no_grad():
    error = F.mse_loss(model(x[test]), y[test]).item()
if hvd.rank() == 0:
    print(f"test error {error:.4f} of 1, last rate {optimizer.param_groups[0]['lr']:.2g}")
