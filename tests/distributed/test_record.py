"""A script of four lines under Horovod leaves one run folder, whole on rank 0, and goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

PROGRAM = """
import sys, torch, horovod.torch as hvd, hvdfilter as hf
from torch.utils.data import DataLoader
world = hf.init()
stop, resume = int(sys.argv[2]), sys.argv[3] == "resume"
torch.manual_seed(0)
x, model = torch.randn(60, 4), torch.nn.Linear(4, 2)
optimizer = hvd.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
filt = hf.Filter(60, hf.policies.make("kakurenbo", warmup=1, tau=0.1), epochs=3)
loader = DataLoader(range(60), 5, sampler=filt.sampler())
run = hf.Record(filt, sys.argv[1], model, optimizer, resume=resume)
for epoch in range(run.next_epoch, stop):
    filt.begin_epoch(epoch, optimizer)
    for ids in loader:
        optimizer.zero_grad()
        filt.loss(model(x[ids]), (x[ids, 0] > 0).long(), ids).backward()
        optimizer.step()
    run.epoch(test_accuracy=0.5 + world.rank)
print(f"at {run.next_epoch} {model.weight.double().sum().item():.12f} ", flush=True)
"""


def test_one_folder_for_all_ranks_and_the_same_run_when_cut_in_two(tmp_path: Path) -> None:
    whole = check_ranks(PROGRAM, 2, str(tmp_path / "whole"), "3", "new")
    check_ranks(PROGRAM, 2, str(tmp_path / "cut"), "1", "new")
    cut = check_ranks(PROGRAM, 2, str(tmp_path / "cut"), "3", "resume")
    ends = [re.findall(r"at (\d) (-?[\d.]+)", out) for out in (whole, cut)]
    assert ends[0] == ends[1] and len(ends[0]) == 2 and len(set(ends[0])) == 1  # equal weights
    lines = {}
    for name in ("whole", "cut"):
        text = (tmp_path / name / "metrics.jsonl").read_text()
        lines[name] = [json.loads(line) for line in text.splitlines()]
    assert [r["mask_digest"] for r in lines["cut"]] == [r["mask_digest"] for r in lines["whole"]]
    for epoch, record in enumerate(lines["cut"]):
        assert (record["epoch"], record["ranks"], record["steps_full"]) == (epoch, 2, 6)
        assert record["test_accuracy"] == 0.5  # rank 0's
        # 10 weights of 4 bytes in two tensors, at every step
        assert record["gradient_bytes"] == 40 * record["steps"]
        assert record["allreduce_calls"] == 2 * record["steps"]
        assert record["steps"] == -(-record["kept"] // 10)
    assert lines["cut"][2]["hidden"] > 0
