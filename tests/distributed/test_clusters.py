"""Gradient clusters on real ranks: the same as in one process, and one sentence for an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from hvdfilter.agreement import SoloCollective
from hvdfilter.world import World
from tests.clustering.oracle import told_by
from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

EPOCHS = """
import sys, hvdfilter as hf
from tests.clustering.oracle import told_by
world = hf.init()
cluster, told = told_by(world, sys.argv[1])
print(f"<{world.rank} {cluster} {told}>", flush=True)
"""


@pytest.mark.parametrize("ranks", [2, 3])
def test_real_ranks_agree_with_one_process(ranks: int, tmp_path: Path) -> None:
    # From centres that one process saved: which samples are candidates depends on the ranks.
    alone = World(0, 1, 0, torch.device("cpu"), SoloCollective())
    start = str(tmp_path / "start.pt")
    told_by(alone, start)
    cluster, told = told_by(alone, start)
    assert len(set(cluster)) > 1
    out = re.findall(r"<(\d) \[(.*?)\] (.*?)>", check_ranks(EPOCHS, ranks, start))
    assert sorted(rank for rank, *_ in out) == [str(rank) for rank in range(ranks)]
    assert [int(k) for _, own, _ in sorted(out) for k in own.split(", ")] == cluster
    assert {found for *_, found in out} == {str(told)}


# In each the last rank does one thing otherwise; every rank must be told, and none left waiting.
BAD = """
import hvdfilter as hf
from torch import nn
world = hf.init()
last = world.rank == world.size - 1
for kind in ("layer", "number", "nothing", "leaves"):
    model = nn.Sequential(nn.Linear(4, 3), nn.PReLU() if kind == "layer" and last else nn.Tanh())
    try:
        clusters = hf.GradientClusters(model, number=5 if kind == "number" and last else 4)
        if kind == "leaves" and last:
            clusters.state_dict()
        else:
            clusters.end_epoch()
        print(f"<{kind}: finished>", flush=True)
    except (hf.InputError, hf.WorldError) as error:
        print(f"<{kind}: {error}>", flush=True)
"""


def test_what_is_wrong_is_one_sentence_on_every_rank() -> None:
    told = re.findall(r"<(.*?)>", check_ranks(BAD, 2))
    for sentence in (
        "layer: rank 1: module '1' (PReLU) has trainable parameters (weight) and GradientCl",
        "number: rank 1 has other number of GradientClusters than rank 0",
        "nothing: end_epoch() of GradientClusters, but no sample was assigned",
        "leaves: rank 0 called GradientClusters.end_epoch() while rank 1 called GradientClusters."
        "state_dict(): ",
    ):
        mine = [line for line in told if line.startswith(sentence)]
        assert len(mine) == 2 and len(set(mine)) == 1, told
