"""A loader that was sharded twice, or ends early, on real ranks: all say so, or none."""

from __future__ import annotations

import re

import pytest

from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

PROGRAM = """
import sys, torch, hvdfilter as hf
from torch.utils.data import DataLoader, DistributedSampler
world = hf.init()
kind = sys.argv[1]
filt = hf.Filter(120, hf.policies.make("kakurenbo", warmup=1, tau=0.1), epochs=9)
sampler = filt.sampler()
if kind == "replaced":
    sampler = DistributedSampler(range(120), world.size, world.rank)
loader = DataLoader(range(120), 5, sampler=sampler)
try:
    for epoch in range(4):
        filt.begin_epoch(epoch)
        for number, ids in enumerate(loader):
            if kind == "twice" and number % world.size != world.rank:
                continue
            if kind == "one" and world.rank == 1 and number == 2 and filt.hidden:
                ids[0] = int((~filt.mask).kept_ids()[0])  # the other rank must hear of it
            if kind == "early" and number == 3:
                break
            logits = torch.eye(3)[ids % 3] * 5 + ids[:, None] / 1e3
            filt.loss(logits.requires_grad_(), ids % 3, ids)
    filt.end_epoch()
    print(f"done {world.rank} hidden {filt.hidden} ", flush=True)
except hf.InputError as error:
    print(f"caught {world.rank} {error}", flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("replaced", r"rank \d: epoch 1: \d+ of the 60 samples that were trained here are hidden"),
        ("twice", r"rank 1: epoch 0: only one of 2 parts of what filt.sampler\(\) gave"),
        ("one", r"rank 1: epoch 1: 1 of the \d+ samples that were trained here are hidden"),
    ],
)
def test_every_rank_is_told(kind: str, sentence: str) -> None:
    out = check_ranks(PROGRAM, 2, kind)
    assert sorted(re.findall(rf"caught (\d) {sentence}", out)) == ["0", "1"], out
    assert "done" not in out


def test_an_epoch_that_all_ranks_end_early_is_no_error() -> None:
    out = check_ranks(PROGRAM, 2, "early")
    assert len(re.findall(r"done \d hidden [1-9]", out)) == 2, out
