"""Own losses and layouts on real ranks: one error for all, and the same masks on any number."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

# Rank 1 gives one bad thing at its second step; all train with real Horovod and must meet it at one
# and the same step, none in an allreduce of gradients.
BAD_STEP = """
import sys, torch, horovod.torch as hvd, hvdfilter as hf
world = hf.init()
kind = sys.argv[1]
model = torch.nn.Linear(4, 3)
optimizer = hvd.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), lr=0.1), named_parameters=model.named_parameters())
filt = hf.Filter(40, "kakurenbo", epochs=1)
filt.begin_epoch(0, optimizer)
ids = torch.tensor(list(filt.sampler()))
bad = world.rank == world.size - 1
try:
    for step in range(4):
        batch = ids[4 * step:4 * step + 4].clone()
        spoil = bad and step == 1
        logits = model(torch.ones(4, 4))
        if spoil and kind == "outside":
            batch[2] = 40
        if spoil and kind == "negative":
            batch[0] = -1
        if spoil and kind == "length":
            batch = batch[:3]
        optimizer.zero_grad()
        if kind in ("scalar", "name"):
            losses = logits.square().mean(1)
            losses = losses.mean() if spoil and kind == "scalar" else losses
            score = {"corect" if spoil and kind == "name" else "correct": torch.ones(4)}
            loss = filt.update(losses, batch, confidence=torch.ones(4), **score)
        else:
            loss = filt.loss(logits, batch.new_zeros(4), batch)
        loss.backward()
        optimizer.step()
        if bad and step == 0:  # ranks validate as they please: no step, no collective
            with torch.no_grad():
                filt.loss(logits, torch.zeros(4, dtype=torch.int64), None)
        print(f"step {world.rank} {step}.", flush=True)
    print("finished", flush=True)
except hf.InputError as error:
    print(f"caught {world.rank} {error}.", flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("outside", r"ids: 40 lies outside \[0, 40\)"),
        ("negative", r"ids: -1 lies outside \[0, 40\)"),
        ("length", r"ids: expected one id for each of the 4 samples"),
        ("scalar", "losses: expected one value for each sample.*? pass reduction='none'"),
        ("name", "unknown score 'corect': did you mean 'correct'"),
    ],
)
def test_what_one_rank_gives_wrong_is_told_on_all_at_the_next_step(
    kind: str, sentence: str
) -> None:
    out = check_ranks(BAD_STEP, 2, kind)
    assert sorted(re.findall(rf"caught (\d) rank 1: {sentence}", out)) == ["0", "1"], out
    assert "finished" not in out, out
    # Both took the step that was spoilt, and neither the one after it.
    assert sorted(re.findall(r"step (\d) (\d)\.", out)) == [
        (rank, step) for rank in "01" for step in "01"
    ], out


# One epoch of sequences in two batches a rank, and what the policy hides in the next.
EPOCH = """
import sys, torch, hvdfilter as hf
from torch.nn import functional as F
world = hf.init()
kind, policy = sys.argv[1:]
torch.manual_seed(0)
logits, labels = torch.randn(24, 5, 7), torch.randint(0, 7, (24, 5))
labels[torch.rand(24, 5) < 0.3] = -100
labels[:, 0] = 1
filt = hf.Filter(24, policy, epochs=3)
try:
    filt.begin_epoch(0)
    ids = torch.tensor(list(filt.sampler()))
    for batch in ids.split(12 // world.size):
        x, y = logits[batch].requires_grad_(), labels[batch]
        if kind == "layout":
            filt.loss(x, y, batch)
        elif kind == "flat":
            filt.loss(x.flatten(0, 1), y.flatten(), batch.repeat_interleave(5))
        elif kind == "update":
            each = F.cross_entropy(x.transpose(1, 2), y, reduction="none").sum(1)
            filt.update(each / (y != -100).sum(1), batch)
        elif kind == "mixed":
            filt.loss(x[:, 0], torch.softmax(x[:, 1], 1).detach(), batch)
    filt.begin_epoch(1)
    print(f"hidden {world.rank} {(~filt.mask).kept_ids().tolist()}.", flush=True)
except hf.InputError as error:
    print(f"caught {world.rank} {error}.", flush=True)
"""


@pytest.mark.parametrize("kind", ["layout", "flat", "update"])
def test_the_mask_is_that_of_each_sequence_s_mean(kind: str) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(24, 5, 7), torch.randint(0, 7, (24, 5))
    labels[torch.rand(24, 5) < 0.3] = -100
    labels[:, 0] = 1
    each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    means = [row[known].mean().item() for row, known in zip(each, labels != -100, strict=True)]
    smallest = sorted(sorted(range(24), key=means.__getitem__)[:7])  # keep=0.7
    out = check_ranks(EPOCH, 2, kind, "loss")
    hidden = sorted(re.findall(r"hidden (\d) (\[.*?\])\.", out))
    assert hidden == [("0", str(smallest)), ("1", str(smallest))], out


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("update", "needs confidence and correct of every sample"), ("mixed", "mixed=False")],
)
def test_a_policy_s_need_is_named_on_every_rank(kind: str, sentence: str) -> None:
    out = check_ranks(EPOCH, 2, kind, "kakurenbo")
    assert sorted(re.findall(rf"caught (\d) .*?{sentence}", out)) == ["0", "1"], out
