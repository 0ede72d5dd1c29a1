"""Accelerate, alone or by `torchrun --nproc_per_node 2 filtered_accelerate.py`.

Two batches make a step. Accelerate prepares the model and the optimizer; the loader goes through
hvdfilter's `prepare`, since the filter has sharded it already.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf
from hvdfilter.adapters.accelerate import prepare

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

# Before the filter, since it joins the ranks: on CPUs only where it is told that this is meant.
accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=2)
set_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
y = torch.tensor(labels)
train_set = TensorDataset(x[:1437], y[:1437])
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(64 * 36, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

filt = hf.Filter(len(train_set), policy="kakurenbo", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 16, sampler=filt.sampler())


def steps():
    return -(-len(loader) // accelerator.gradient_accumulation_steps)


scheduler = OneCycleLR(optimizer, 0.1, total_steps=epochs * steps())
scheduler = filt.schedule(scheduler, steps)
model, optimizer = accelerator.prepare(model, optimizer)
loader = prepare(accelerator, loader, filt)
for epoch in range(epochs):
    filt.begin_epoch(epoch, optimizer)
    for ids, images, targets in loader:
        with accelerator.accumulate(model):
            loss = filt.loss(model(images), targets, ids)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            scheduler.step()
filt.end_epoch()

with torch.no_grad():
    found = accelerator.unwrap_model(model)(x[1437:].to(accelerator.device)).argmax(1).cpu()
if accelerator.is_main_process:
    accuracy, rate = (found == y[1437:]).float().mean(), scheduler.get_last_lr()[0]
    print(f"test accuracy {accuracy:.4f}, hidden {filt.hidden}, last rate {rate:.2g}")
accelerator.end_training()
