"""Weights and repeats on real ranks: the same draws on any number of them, and their weights."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

N = 203  # no multiple of 8, nor of 2, 3 or 4 ranks
PROGRAM = """
import numpy as np, torch, hvdfilter as hf
from dataclasses import dataclass
from hvdfilter.policies import Plan, Policy

@dataclass(frozen=True)
class Weighing(Policy):
    columns = ("loss",)
    def plan(self, view):
        ids = view.ids
        weight = ((ids * 7919 % 1000 if view.epoch else ids % 3) / 100).astype(np.float32)
        return Plan(view.random_keys(0), 150, weight=weight, repeats=1 + ids % 4)

world = hf.init()
filt = hf.Filter(203, Weighing(), epochs=2)
for epoch in range(2):
    mask, drawn, weights = filt.begin_epoch(epoch), [], []
    for ids in np.array_split(filt.sampler().ids(), 5):
        losses = torch.from_numpy(ids % 11 + 0.5).requires_grad_()
        filt.update(losses, torch.from_numpy(ids)).backward()
        drawn.append(ids)
        weights.append((losses.grad * len(ids)).numpy())
    filt.end_epoch()
    # Told by one rank: lines of several may be mixed.
    drawn, weights = (
        np.concatenate(world.collective.allgather(np.concatenate(part))).tolist()
        for part in (drawn, weights)
    )
    if world.rank == 0:
        print(f"<mask {epoch} {mask.digest} {filt.draws.digest}>")
        for sample, weight in zip(drawn, weights):
            print(f"<draw {epoch} {sample} {weight:.6f}>")
"""


def expected(epoch: int, sample: int) -> float:
    value = sample * 7919 % 1000 if epoch else sample % 3
    return float(torch.tensor(value / 100, dtype=torch.float32))


def test_draws_and_weights_are_the_same_on_one_to_four_ranks() -> None:
    masks, draws = set(), []
    for ranks in (1, 2, 3, 4):
        out = check_ranks(PROGRAM, ranks)
        masks.add(frozenset(re.findall(r"<mask (.*?)>", out)))
        found = re.findall(r"<draw (\d) (\d+) (\S+)>", out)
        for epoch, sample, weight in found:
            assert float(weight) == pytest.approx(expected(int(epoch), int(sample)), abs=1e-6)
        draws.append(Counter((epoch, int(sample)) for epoch, sample, _ in found))
    assert len(masks) == 1 and len(next(iter(masks))) == 2
    for ranks, counted in enumerate(draws[1:], 2):
        extra = counted - draws[0]  # what fills up the last step
        assert draws[0] - counted == Counter() and sum(extra.values()) < 2 * ranks
    assert all(times == 1 + sample % 4 for (_, sample), times in draws[0].items())
