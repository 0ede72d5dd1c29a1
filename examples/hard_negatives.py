"""Hard negatives from the batches of all ranks: `mpirun -np 2 python hard_negatives.py`.

Two small nets embed the upper and the lower half of a digit, as others embed images and captions;
each half must find the other among those of all digits. The pairs that are found most easily are
left out of the next epoch.
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

hvd.init()
torch.manual_seed(0)
pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 16
halves = TensorDataset(*pixels[torch.randperm(len(pixels))].split(32, 1))
train_set, test = TensorDataset(*halves[:1437]), halves[1437:]
upper, lower = (nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2))
model = nn.ModuleList([upper, lower])
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)

filt = hf.Filter(len(train_set), policy="loss", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 32, sampler=filt.sampler())
for epoch in range(epochs):
    filt.begin_epoch(epoch, optimizer)
    for ids, above, below in loader:
        optimizer.zero_grad()
        # ids: the sampler may draw a pair on two ranks, to give all of them as many.
        losses = hf.losses.hard_negative(upper(above), lower(below), ids=ids, reduction="none")
        loss = filt.update(losses, ids)
        loss.backward()
        optimizer.step()
filt.end_epoch()

with torch.no_grad():
    similar = F.normalize(upper(test[0])) @ F.normalize(lower(test[1])).T
found = (similar.argmax(1) == torch.arange(len(similar))).float().mean().item()
if hvd.rank() == 0:
    print(f"recall@1 {found:.3f}, hidden {filt.hidden} of {len(train_set)}")
