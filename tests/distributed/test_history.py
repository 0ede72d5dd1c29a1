"""What a run keeps for people does not depend on the number of ranks, nor on a resumption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvdfilter.inspection.samples import samples_of
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.world import current
from tests.distributed.launch import check_ranks
from tests.training.cases import finish, stopped_and_resumed

# Scores that depend on (id, epoch) alone; the record's folder is written by rank 0.
PROGRAM = """
import sys
import numpy as np, torch
import hvdfilter as hf
hf.init()
n, epochs = 203, 5
labels = np.arange(n) % 3
filt = hf.Filter(n, hf.policies.make("kakurenbo", warmup=1, tau=0.1), epochs=epochs,
                 labels=labels, history=True)
run = hf.Record(filt, sys.argv[1], torch.nn.Linear(2, 2))
for epoch in range(epochs):
    filt.begin_epoch(epoch)
    for ids in torch.tensor(list(filt.sampler())).split(16):
        gap = torch.sin(ids * 12.9898 + epoch) * 4
        logits = torch.nn.functional.one_hot(ids % 3, 3) * gap[:, None]
        filt.loss(logits.requires_grad_(), ids % 3, ids)
    run.epoch()
"""


@pytest.mark.distributed
def test_lines_and_samples_are_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    lines, samples = [], []
    for ranks in (1, 2, 3):
        run = tmp_path / f"on{ranks}"
        check_ranks(PROGRAM, ranks, str(run))
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        lines.append([[r.get(name) for name in ("classes", "scores", "mask")] for r in records])
        samples.append(samples_of(run))
    assert lines[1] == lines[0] == lines[2]
    assert lines[0][-1][2]["turnover"] > 0 and lines[0][-1][1]["loss"]["threshold"] is not None
    one = samples[0]
    assert one.labels.tolist() == (np.arange(203) % 3).tolist() and one.epochs == 5
    assert 0 < one.columns["hidden_epochs"].sum() < 203 * 5
    for other in samples[1:]:
        assert other.columns.keys() == one.columns.keys()
        for name, column in one.columns.items():
            assert np.array_equal(other.columns[name], column), name


def test_a_resumed_run_has_the_lines_of_one_left_alone(tmp_path: Path) -> None:
    # Stopped in the middle of its third epoch, which by then has hidden samples.
    config = TrainConfig(
        data="synthetic:60,1,8,8,4", model="cnn:4", epochs=4, batch_size=10, warmup_epochs=0,
        policy_options={"warmup": 1, "tau": 0.0},
    )  # fmt: skip
    whole, resumed = stopped_and_resumed(config, tmp_path, 14)
    records = [
        [json.loads(line) for line in (t.folder.path / "metrics.jsonl").read_text().splitlines()]
        for t in (whole, resumed)
    ]
    for mine, theirs in zip(*records, strict=True):
        for name in ("classes", "scores", "mask", "mask_digest"):
            assert mine.get(name) == theirs.get(name)
    assert records[0][2]["hidden"] > 0
    columns = [samples_of(t.folder.path).columns for t in (whole, resumed)]
    for name, column in columns[0].items():
        assert np.array_equal(columns[1][name], column), name


def test_the_main_job_notes_margins_whatever_its_policy(tmp_path: Path) -> None:
    config = TrainConfig(
        data="synthetic:48,1,8,8,4", model="cnn:4", epochs=3, batch_size=12, warmup_epochs=0,
        runs=tmp_path,
    )  # fmt: skip
    for policy in ("full", "grand", "gradient-clustering", "infobatch"):
        run = Trainer(replace(config, policy=policy, name=policy), current())
        finish(run)
        samples = samples_of(run.folder.path)
        trained = samples.columns["trained_epochs"] + samples.columns["hidden_epochs"]
        assert (trained == 3).all(), policy
        assert np.isfinite(
            samples.columns["margin_mean"][samples.columns["trained_epochs"] > 0]
        ).all()
        assert np.array_equal(samples.labels, run.train_set.labels)
