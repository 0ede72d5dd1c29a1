"""What the tests of several libraries' loops share: a set, a net, and a policy of given lengths."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import hvdfilter as hf
from tests.distributed.launch import ROOT, run_command

# Lengths that fall, rise above what came before, and leave a last batch that is not full: a loop
# that plans by the first epoch's length, or by the last one's, is caught either way.
SHARES = (0.5, 1.0, 0.3, 0.9)
SAMPLES, CLASSES, BATCH = 101, 3, 8
# Two ranks, and one, of an example.
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
LAUNCHERS = {"alone": [], "torchrun": TORCHRUN}
# Where a torchvision beside another torch is made to import.
BESIDE = ROOT / "tests" / "frameworks" / "beside"


@dataclass(frozen=True)
class Shares(hf.policies.Policy):
    """Keep a random share of the samples, another one each epoch."""

    name: ClassVar[str] = "test-shares"
    scale_lr: bool = False

    def plan(self, view: hf.policies.View) -> hf.policies.Plan:
        keep = round(SHARES[view.epoch] * view.num_samples)
        return hf.policies.Plan(view.random_keys(view.epoch), keep)


def make_set() -> TensorDataset:
    """101 samples of 6 numbers and a class."""
    x = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x[:, :CLASSES].argmax(1))


def make_net() -> nn.Sequential:
    """The same weights whenever it is made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def kept(policy: hf.policies.Policy | str, epochs: int = len(SHARES)) -> list[list[int]]:
    """What a policy that looks at no score keeps in each epoch, in ascending order."""
    filt = hf.Filter(SAMPLES, policy, epochs=epochs)
    return [filt.begin_epoch(epoch).kept_ids().tolist() for epoch in range(epochs)]


def order(epochs: int = len(SHARES)) -> list[list[int]]:
    """The order in which a filter that hides nothing draws in a world of one."""
    sampler = hf.ShardSampler(hf.KeepMask.full(SAMPLES), 0, 1)
    drawn = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
    return drawn


def weights(net: nn.Module) -> torch.Tensor:
    """All parameters as one vector."""
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


def beside() -> dict[str, str]:
    """The environment of a process that may import torchvision."""
    path = [str(BESIDE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path)}


def by_hand(ranks: int = 1, accumulate: int = 1) -> torch.Tensor:
    """The weights of plain SGD by torch alone: each step, the mean of its batches of all ranks."""
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = make_set().tensors
    filt = hf.Filter(SAMPLES, Shares(), epochs=len(SHARES))
    for epoch in range(len(SHARES)):
        mask = filt.begin_epoch(epoch)
        shards = []
        for rank in range(ranks):
            sampler = hf.ShardSampler(mask, rank, ranks)
            sampler.set_epoch(epoch)
            shards.append(torch.tensor(list(sampler)).split(BATCH))
        for first in range(0, len(shards[0]), accumulate):
            taken = [ids for shard in shards for ids in shard[first : first + accumulate]]
            optimizer.zero_grad()
            sum(F.cross_entropy(net(x[ids]), y[ids]) / len(taken) for ids in taken).backward()
            optimizer.step()
    return weights(net)


def run_example(
    script: str, launcher: list[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of examples/, or at another path, from `launcher` on."""
    command = [sys.executable, *launcher, str(ROOT / "examples" / script), *arguments]
    return run_command(command, timeout=110, env=beside())
