"""A language model, one score a sequence: `mpirun -np 2 python language_model.py`.

Logits are [B, T, V] and labels [B, T], each token's successor; a sequence's score is the mean over
its tokens, padding (-100) left out. The text is what scikit-learn says of its data sets.
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn import datasets
from torch import nn
from torch.utils.data import DataLoader

import hvdfilter as hf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=6)
epochs = parser.parse_args().epochs

hvd.init()
torch.manual_seed(0)
sets = (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_diabetes)
text = torch.tensor(list("".join(load().DESCR for load in sets).encode("ascii", "replace")))
words = text[: len(text) // 33 * 33].view(-1, 33)
train_set = [{"input_ids": row[:-1], "labels": row[1:]} for row in words]


class Net(nn.Module):
    """A recurrent model of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 32)
        self.recur = nn.GRU(32, 128, batch_first=True)
        self.head = nn.Linear(128, 128)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, T, 128] of tokens [B, T]."""
        return self.head(self.recur(self.embed(tokens))[0])


model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3 * hvd.size())
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)

filt = hf.Filter(len(train_set), policy="kakurenbo", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 16, sampler=filt.sampler())
for epoch in range(epochs):
    filt.begin_epoch(epoch, optimizer)
    total = torch.zeros(())
    for batch in loader:
        optimizer.zero_grad()
        loss = filt.loss(model(batch["input_ids"]), batch["labels"], batch["ids"])
        loss.backward()
        optimizer.step()
        total += loss.detach()
    mean = hvd.allreduce(total / len(loader), name="loss").item()
filt.end_epoch()
if hvd.rank() == 0:
    print(f"training loss {mean:.4f}, hidden {filt.hidden} of {len(train_set)}")
