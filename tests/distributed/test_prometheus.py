"""Whose the figures are that rank 0 writes for all, from two real ranks with unlike samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvdfilter.training.run_folder import read_metrics
from tests.distributed.launch import check_ranks

# Every rank sums its own losses up, beside the run; rank 0 also reads the file after each step.
PROGRAM = """
import json, sys
from pathlib import Path
from hvdfilter.telemetry.prometheus import Prometheus
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Follower
from hvdfilter.training.start import train
from hvdfilter.training.step import Step
from tests.telemetry.readers import exposition

folder = Path(sys.argv[1])
losses, said = [], []
call = Step.__call__

def noted(self, ids, x, y):
    loss = call(self, ids, x, y)
    losses.append((float(loss), len(ids)))
    return loss

Step.__call__ = noted
path = folder / "x.prom"

class Looking(Follower):
    every = 0.0
    def tick(self, run, now):
        said.append(exposition(path.read_text())["hvdfilter_train_loss", "one"])
    def epoch(self, run, record, now):
        if run.world.rank == 0:
            self.tick(run, now)
        self.rank = run.world.rank

writes, looks = Prometheus(path), Looking()
writes.every = 0.0
config = TrainConfig(data="synthetic:48,1,8,8,4", epochs=1, batch_size=8, policy="full",
                     runs=folder, name="one")
train(config, followers=[writes, looks])
(folder / f"{looks.rank}.json").write_text(json.dumps([losses, said]))
"""


@pytest.mark.distributed
def test_the_loss_is_rank_0s_within_an_epoch_and_everybodys_after_it(tmp_path: Path) -> None:
    # 48 samples: three batches of 8 on each rank.
    check_ranks(PROGRAM, 2, str(tmp_path))
    mine, said = json.loads((tmp_path / "0.json").read_text())
    theirs, _ = json.loads((tmp_path / "1.json").read_text())

    def mean(losses: list[tuple[float, int]]) -> float:
        return sum(loss * n for loss, n in losses) / sum(n for _, n in losses)

    assert said[:3] == pytest.approx([mean(mine[:step]) for step in (1, 2, 3)], rel=1e-6)
    assert said[3] == pytest.approx(mean(mine + theirs), rel=1e-6)
    assert said[3] == read_metrics(tmp_path / "one")[0]["train_loss"]
    assert abs(said[3] - said[2]) > 1e-3  # one is not the other
    helps = [
        line for line in (tmp_path / "x.prom").read_text().splitlines() if "train_loss" in line
    ]
    assert "rank 0" in helps[0] and "of all" in helps[0]
