"""Checkpoints within an epoch: they change nothing, and a run goes on from them bit for bit.

The network has BatchNorm, whose statistics are each rank's own until the epoch ends; the policy
draws some samples more than once, whose scores are then noted more than once in an epoch.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed.launch import check_ranks

PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from hvdfilter.training.checkpoint import digest
from hvdfilter.training.checkpoints import finished
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
from hvdfilter.world import current

class Cut(Exception):
    pass

torch.set_num_threads(1)
runs, model, policy, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
exchange = options.pop("exchange", "float32")
config = TrainConfig(
    model=model, policy=policy, policy_options=options, runs=runs, limit=120, batch_size=8,
    epochs=4, resume=True, checkpoint_minutes=0.0, exchange=exchange,
)
often = replace(config, checkpoint_minutes=1e-6)
steps = 0
def cut(epoch, step, count):
    global steps
    steps += 1
    if steps == int(sys.argv[5]):
        raise Cut

train(replace(config, name="whole"))
train(replace(often, name="saved"))
try:
    train(replace(often, name="cut"), cut)
except Cut:
    pass
train(replace(often, name="cut"))
for name in ("whole", "saved", "cut"):
    state, _ = finished(runs / name, current())
    weights = [state["model"][key].numpy().tobytes() for key in sorted(state["model"])]
    if current().rank == 0:
        lines = [json.loads(x) for x in (runs / name / "metrics.jsonl").read_text().splitlines()]
        said = [[x[k] for k in ("epoch", "train_loss", "test_loss", "mask_digest")] for x in lines]
        print(json.dumps([digest(b"".join(weights)), said]), flush=True)
"""


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("model", "policy", "options"),
    [
        # 8 bits: the code is that of all scores of an epoch, whenever they were saved.
        ("resnet9:4", "importance", {"batch": 100, "presample": 1, "exchange": "8bit"}),
        ("cnn:4", "gradient-clustering", {"clusters": 3}),
    ],
    ids=["importance", "gradient-clustering"],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_saving_changes_nothing_and_going_on_is_exact(
    tmp_path: Path, ranks: int, model: str, policy: str, options: dict[str, object]
) -> None:
    cut = 36 if ranks == 1 else 19  # in the middle of the third epoch
    said = check_ranks(PROGRAM, ranks, str(tmp_path), model, policy, json.dumps(options), str(cut))
    whole, saved, gone_on = said.splitlines()[-3:]
    assert saved == whole
    assert gone_on == whole
    assert [line[0] for line in json.loads(whole)[1]] == [0, 1, 2, 3]
