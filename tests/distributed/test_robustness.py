"""`hvdfilter robustness` on real ranks: every rank attacks its share, and finds what one would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvdfilter import cli
from hvdfilter.training import robust_run
from tests.distributed.launch import run_command
from tests.distributed.test_train import launch

pytestmark = pytest.mark.distributed


def test_radii_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    # 700 samples have 140 test samples: three batches, of which the last is short, for two ranks.
    options = ["--data", "synthetic:700,1,8,8,4", "--epochs", "2", "--warmup_epochs", "1"]
    assert cli.main(["train", *options, "--runs", str(tmp_path), "--name", "run"]) == 0
    attack = ["robustness", str(tmp_path / "run"), "--steps", "3", "--norms", "linf"]
    assert cli.main(attack) == 0
    alone = json.loads((tmp_path / "run" / robust_run.FILE).read_text())
    (tmp_path / "run" / robust_run.FILE).unlink()
    done = run_command(launch(2, *attack), timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.count("right as they are") == 1
    assert len(alone["radii"]["linf"]) == 140
    assert alone == json.loads((tmp_path / "run" / robust_run.FILE).read_text())


def test_a_folder_that_is_no_run_is_refused_on_every_rank(tmp_path: Path) -> None:
    done = run_command(launch(2, "robustness", str(tmp_path)), timeout=60)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("hvdfilter: error:")]
    assert len(said) == 1 and "is not a run folder" in said[0]
