"""Score files and openings on real ranks: written by some, read by others, refused by all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvdfilter.data import open_dataset
from hvdfilter.policies import score_file
from hvdfilter.policies.feature_filter import SCORES
from tests.distributed.launch import run_command
from tests.distributed.test_train import launch, train
from tests.policies.static_cases import score_file_of

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.distributed
N = 96
DATA = f"synthetic:{N},1,8,8,4"
OPTIONS = ["--data", DATA, "--epochs", "3", "--warmup_epochs", "1", "--batch_size", "8"]


def test_ranks_train_the_opening_of_several_seeds_and_score_the_run(tmp_path: Path) -> None:
    policy = ["--policy", "el2n", "--policy_options.keep", "0.5"]
    opening = ["--policy_options.opening", "2", "--policy_options.seeds", "2"]
    records = train(tmp_path, 3, *OPTIONS, *policy, *opening)
    assert [r["kept"] for r in records] == [N // 2] * 3
    made = tmp_path / "run" / "opening" / "scores.parquet"
    labels = open_dataset(DATA, train=True).labels
    means = score_file.read(made, ["el2n"], 0, N, N, labels)["el2n"]
    assert np.isfinite(means).all() and len(set(means.tolist())) > N // 2
    # Two ranks choose from the file what three did.
    chosen = train(tmp_path, 2, *OPTIONS, *policy, "--policy_options.scores", str(made), name="two")
    assert {r["mask_digest"] for r in chosen + records} == {records[0]["mask_digest"]}
    # And the scores of the run are those that one rank computes.
    alone = None
    for ranks in (1, 3):
        done = run_command(launch(ranks, "score", str(tmp_path / "run")), timeout=60)
        assert done.returncode == 0, done.stderr[-3000:]
        path = tmp_path / "run" / "scores.parquet"
        features = [f"feature_{name}" for name in SCORES]
        columns = score_file.read(path, ["loss", "correct", *features], 0, N, N, labels)
        alone = columns if alone is None else alone
        np.testing.assert_allclose(columns["loss"], alone["loss"], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(columns["correct"], alone["correct"])
        for name in features:
            assert len(set(columns[name].tolist())) > N // 2  # a score, not a constant
            np.testing.assert_allclose(columns[name], alone[name], rtol=1e-3, atol=1e-5)


def test_a_file_of_another_set_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    labels = open_dataset(DATA, train=True).labels.copy()
    labels[N - 1] += 1  # of the last rank's block
    path = score_file_of(tmp_path / "s.parquet", {"el2n": np.ones(N, np.float32)}, labels)
    options = [*OPTIONS, "--policy", "el2n", "--policy_options.scores", path]
    done = run_command(launch(3, "train", "--runs", str(tmp_path), *options), timeout=60)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("hvdfilter: error:")]
    assert len(said) == 1 and f"rank 2: {path}: sample {N - 1} has label" in said[0], done.stderr
