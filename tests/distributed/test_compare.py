"""Three runs by turns on real ranks: each is the run it would be alone, the random one as short."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hvdfilter.report.page import write_page
from hvdfilter.training.score_run import score_run
from tests.distributed.launch import run_command
from tests.distributed.test_train import SMALL, launch, train

pytestmark = pytest.mark.distributed
# tau 0 on a set that is easy to learn, so that the last epochs hide samples.
OPTIONS = [*SMALL, "--policy_options.tau", "0", "--epochs", "4", "--batch_size", "8"]


def test_runs_that_take_turns_do_not_touch_each_other(tmp_path: Path) -> None:
    command = launch(2, "compare", "--runs", str(tmp_path), "--name", "three", *OPTIONS)
    done = run_command(command, timeout=90)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    runs = {
        policy: [
            json.loads(line)
            for line in (tmp_path / f"three-{policy}" / "metrics.jsonl").read_text().splitlines()
        ]
        for policy in ("kakurenbo", "full", "random")
    }
    alone = train(tmp_path, 2, *OPTIONS, name="alone")
    for mine, other in zip(runs["kakurenbo"], alone, strict=True):
        assert mine["mask_digest"] == other["mask_digest"]
        assert mine["test_loss"] == pytest.approx(other["test_loss"], rel=1e-5)
    assert alone[-1]["hidden"] > 0
    for mine, other in zip(runs["kakurenbo"], runs["random"], strict=True):
        for equal in ("hidden", "steps", "lr_scale"):
            assert mine[equal] == other[equal]
        assert (mine["mask_digest"] != other["mask_digest"]) == (mine["hidden"] > 0)
    assert not any(record["hidden"] for record in runs["full"])
    for records in runs.values():
        # Of two ranks, each of which works for most of the time on one thread (and Horovod's).
        assert all(0 < r["cpu_seconds"] < 5 * r["seconds"]["total"] for r in records)
    turns = re.findall(r"^epoch +\d+/4  (\w+)", done.stdout, re.MULTILINE)
    assert turns == (["full", "kakurenbo", "random"] + ["kakurenbo", "random", "full"]) * 2
    # Every run can be scored and reported on like any other.
    folders = [tmp_path / f"three-{policy}" for policy in runs]
    assert all(score_run(folder).exists() for folder in folders)
    page = write_page(folders).read_text()
    assert all(folder.name in page for folder in folders)
    assert "`kakurenbo` hid" in done.stdout and "hiding as many at random" in done.stdout
