"""feature-filter and a batch that grows, on real ranks: one choice, equal steps, and going on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from hvdfilter import cli
from hvdfilter.training.run_folder import read_metrics
from tests.distributed.launch import check_ranks
from tests.distributed.test_train import train

pytestmark = pytest.mark.distributed
# 300 real images; opening of 2 epochs, then half of them at three times the batch.
DIGITS = "--data digits --limit 300 --epochs 4 --warmup_epochs 1 --lr 0.1 --batch_growth 3".split()
POLICY = "--policy feature-filter --policy_options.opening 2 --policy_options.keep 0.5".split()


def test_one_rank_and_two_choose_and_grow_alike(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    score = ["--policy_options.score", "reconstruction"]
    here = ["train", "--runs", str(tmp_path), *DIGITS, *POLICY, *score]
    two = train(tmp_path, 2, *DIGITS, *POLICY, *score, "--batch_size", "12")
    assert cli.main([*here, "--batch_size", "24", "--name", "one"]) == 0
    one = read_metrics(tmp_path / "one")
    for records, size in ((one, 24), (two, 12)):
        assert [r["batch_size"] for r in records] == [size, size, 3 * size, 3 * size]
        assert [r["steps"] for r in records] == [13, 13, 3, 3]  # of 300, then 150 by 72
        assert [r["steps_full"] for r in records] == [13, 13, 5, 5]
        assert [r["hidden"] for r in records] == [0, 0, 150, 150]
        assert records[2]["mask_digest"] == records[3]["mask_digest"]
        for mine, alone in zip(records, one, strict=True):
            assert mine["test_loss"] == pytest.approx(alone["test_loss"], rel=2e-2)
            assert mine["lr"] == pytest.approx(alone["lr"])
    step = two[0]["gradient_bytes"] // 13
    assert [r["gradient_bytes_saved"] for r in two] == [0, 0, 2 * step, 2 * step]
    # What two ranks chose by is a file from which one rank chooses the same.
    assert cli.main(["score", str(tmp_path / "run")]) == 0
    scores = ["--policy_options.scores", str(tmp_path / "run" / "scores.parquet")]
    assert cli.main([*here, *scores, "--name", "again"]) == 0
    again = read_metrics(tmp_path / "again")
    assert {r["mask_digest"] for r in again} == {two[-1]["mask_digest"]}
    assert {r["batch_size"] for r in again} == {96}  # hidden, and so grown, from the first epoch


CUT_AND_RESUMED = """
import json, sys
from dataclasses import replace
from pathlib import Path
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
from hvdfilter.world import init
class Stop(Exception): pass
steps = 0
def progress(epoch, step, count):
    global steps
    steps += 1
    if steps == 39:  # 19 an epoch of the opening, then 7
        raise Stop
for optimizer in sys.argv[2:]:
    config = TrainConfig(data="digits", limit=300, policy="feature-filter", batch_size=8,
        policy_options={"opening": 2, "score": "density"}, epochs=4, warmup_epochs=1,
        batch_growth=2, optimizer=optimizer, runs=Path(sys.argv[1], optimizer), resume=True)
    train(replace(config, name="whole"))
    steps = 0
    try:
        train(replace(config, name="cut"), progress)
    except Stop:
        pass
    train(replace(config, name="cut"))
"""


def test_a_run_cut_after_the_choice_ends_with_the_same_bits(tmp_path: Path) -> None:
    there = importlib.util.find_spec("pytorch_optimizer") is not None  # the extra large-batch
    optimizers = ["sgd", "lamb"] if there else ["sgd"]
    check_ranks(CUT_AND_RESUMED, 2, str(tmp_path), *optimizers, timeout=100)
    for optimizer in optimizers:
        whole, cut = (read_metrics(tmp_path / optimizer / name) for name in ("whole", "cut"))
        assert [r["steps"] for r in whole] == [19, 19, 7, 7]
        for name in ("mask_digest", "test_loss", "train_loss", "lr", "batch_size"):
            assert [r[name] for r in cut] == [r[name] for r in whole], name


REFUSED = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from hvdfilter.errors import InputError
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
from hvdfilter.world import init
runs = Path(sys.argv[1])
good = TrainConfig(data="digits", limit=64, policy="feature-filter", epochs=12, runs=runs)
for bad in (
    {"policy_options": {"score": "gradeint"}},
    {"model": "tests.training.test_growth:convolution"},
    {"batch_growth": 0},
    {"batch_growth": 2, "policy": "full"},
):
    try:
        train(replace(good, **bad))
    except InputError as refused:
        sys.stdout.write(f"rank {init().rank} says: {refused}\\n")
assert not runs.exists()
"""


def test_what_cannot_be_is_one_sentence_on_every_rank_before_training(tmp_path: Path) -> None:
    said = check_ranks(REFUSED, 2, str(tmp_path / "runs"), timeout=60).splitlines()
    for sentence in (
        "score='gradeint' is none; did you mean 'gradient'?",
        "needs a model that ends in a torch.nn.Linear",
        "batch_growth=0 must be at least 1",
        "'full' has none: say when, with --batch_growth_epoch",
    ):
        found = [line for line in said if sentence in line]
        assert {line.partition(" says")[0] for line in found} == {"rank 0", "rank 1"}, said
