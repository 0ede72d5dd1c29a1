"""Ranks that end without ending their last epoch, and collectives that one rank alone calls."""

from __future__ import annotations

import pytest

from tests.distributed.launch import run_ranks

pytestmark = pytest.mark.distributed

PROGRAM = """
import sys, torch, numpy as np, hvdfilter as hf
world, kind = hf.init(), sys.argv[1]
labels = np.arange(40) % (3 if kind != "labels" or world.rank == 0 else 2)
filt = hf.Filter(40, hf.policies.make("kakurenbo", warmup=9), epochs=1, labels=labels)
filt.begin_epoch(0)
for at in filt.sampler():
    bad = kind == "step" and world.rank == 1 and filt.batches == len(filt.sampler()) - 1
    filt.loss(torch.randn(1, 3, requires_grad=True), torch.tensor([0]), [400 if bad else at])
if kind == "mean":
    filt.settle()
    if world.rank == 0:
        filt.book.mean("loss")
if kind == "record" and world.rank == 0:
    hf.Record(filt, sys.argv[2], torch.nn.Linear(1, 1))
if kind != "step":
    filt.end_epoch()
"""


def test_a_bad_last_step_ends_the_job_though_nobody_ends_the_epoch() -> None:
    done = run_ranks(PROGRAM, 2, "step")
    assert done.returncode != 0
    assert "hvdfilter: error: rank 1: ids: 400 lies outside [0, 40)" in done.stderr, done.stderr
    assert "seen as the script exits" in done.stderr


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("mean", "rank 0 called mean() while rank 1 called end_epoch(): mean is collective"),
        ("record", "rank 0 called Record() while rank 1 called end_epoch(): Record is collective"),
        ("labels", "rank 1: Filter was given num_samples=40"),
    ],
)
def test_every_rank_is_told(kind: str, sentence: str, tmp_path) -> None:
    done = run_ranks(PROGRAM, 2, kind, str(tmp_path / "run"), timeout=60)
    assert done.returncode != 0
    assert done.stderr.count(sentence) == 2, done.stderr
