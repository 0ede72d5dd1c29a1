"""Shaping, extrapolation, low precision, growing sets and minority repeats between real ranks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hvdfilter import cli
from tests.distributed.launch import check_ranks, run_command
from tests.distributed.test_train import launch, train

pytestmark = pytest.mark.distributed

OPTIONS = """
    --data synthetic:96,1,8,8,4 --epochs 2 --warmup_epochs 0 --policy random
    --policy_options.keep 0.75 --policy_options.minority 0.9
    --extrapolation 1.0 --shaping adversarial --shaping_options.norm l2
    --shaping_options.epsilon 0.5 --shaping_options.steps 2 --exchange 8bit
""".split()


def alone(folder: Path, name: str, *options: str) -> list[dict]:
    """The records of a run in this process."""
    command = ["train", "--runs", str(folder), "--name", name, *OPTIONS, "--batch_size", "12"]
    assert cli.main([*command, *options]) == 0
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def test_ranks_take_the_steps_that_one_process_takes(tmp_path: Path) -> None:
    # Batch 12 on one rank, 6 on two: the same global batches. An extrapolation along a rank's own
    # gradient, or inputs that are shaped otherwise, would move losses by far more than rounding.
    one = alone(tmp_path, "one")
    plain = alone(tmp_path, "plain", "--extrapolation", "0")
    two = train(tmp_path, 2, *OPTIONS, "--batch_size", "6", name="two")
    for mine, its, other in zip(two, one, plain, strict=True):
        assert mine["mask_digest"] == its["mask_digest"] == other["mask_digest"]
        assert mine["kept"] == its["kept"] > 72  # minority repeats on top of 72 kept
        assert mine["test_loss"] == pytest.approx(its["test_loss"], rel=2e-3)
        assert abs(other["test_loss"] / its["test_loss"] - 1) > 1e-2
        assert mine["bytes_sent"]["exchange"] <= 96 * 5 + 400  # one byte of loss, four of place
        assert mine["bytes_sent"]["shaping"] > 0 and "shaping" in mine["seconds"]
        # 30 % of the 72 kept are picked; one that is drawn again is shaped again.
        assert 21 <= its["shaped"] <= mine["shaped"] <= its["shaped"] + 2


SENTENCES = """
import numpy as np, hvdfilter as hf
world = hf.init()
def said(work):
    try:
        work()
    except hf.InputError as error:
        return str(error)
    return "nothing"
make = hf.policies.make
cases = [
    lambda: hf.Filter(40, epochs=2, exchange="half"),
    lambda: hf.Filter(40, epochs=2, exchange=["float16", "8bit"][world.rank]),
    lambda: hf.Filter(40, make("expansion"), epochs=6).begin_epoch(0),
    lambda: hf.Filter(40, make("full", minority=1.0), epochs=2).begin_epoch(0),
]
for case in cases:
    print(f"<{world.rank}|{said(case)}>", flush=True)
"""


def test_bad_input_is_one_sentence_on_every_rank(tmp_path: Path) -> None:
    out = check_ranks(SENTENCES, 2)
    for sentence in (
        "exchange='half' is unknown: choose from float32, float16, 8bit",
        "exchange=8bit, history=False here but",
        "opening=5 leaves no epoch to grow in",
        "minority needs labels: give them to Filter",
    ):
        told = [rank for rank, said in re.findall(r"<(\d)\|([^>]*)>", out) if sentence in said]
        assert sorted(told) == ["0", "1"], out
    options = ["--runs", str(tmp_path), "--data", "synthetic:96,1,8,8,4", "--shaping", "freindly"]
    done = run_command(launch(2, "train", *options), timeout=60)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("hvdfilter: error:")]
    assert len(said) == 1 and "did you mean 'friendly'" in said[0]
    assert not list(tmp_path.iterdir())  # refused before there is a folder
