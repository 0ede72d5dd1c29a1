"""Steps of several backwards, and gradients in half precision, over real ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed.launch import check_ranks

# A network without BatchNorm: in parts of a batch it is that of the whole but for rounding. 2 x 50
# samples in steps of 3 x 8 on each of two ranks end with a part of 2, alone in its step.
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.training import network, ring

torch.set_num_threads(1)
world = ring.start()
network.models.make = lambda name, *shape: torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(64, 10)
)
found = {}
for name, options in {
    "whole": {"batch_size": 24},
    "parts": {"batch_size": 8, "accumulate": 3},
    "half": {"batch_size": 24, "fp16_allreduce": True},
}.items():
    run = Trainer(TrainConfig(
        runs=Path(sys.argv[1]), name=name, limit=100, epochs=2, policy="full", warmup_epochs=0,
        **options,
    ), world)
    with Watch() as watch:
        for _ in range(2):
            record = run.run_epoch(watch, lambda *where: None)
    weights = torch.cat([p.detach().flatten() for p in run.model.parameters()])
    everyone = world.collective.allgather(weights.numpy())
    assert all((other == everyone[0]).all() for other in everyone)
    found[name] = {"weights": weights.tolist(), **record}
if world.rank == 0:
    print(json.dumps(found))
"""


@pytest.mark.distributed
def test_parts_and_half_precision_over_two_ranks(tmp_path: Path) -> None:
    found = json.loads(check_ranks(PROGRAM, 2, str(tmp_path)).splitlines()[-1])
    whole, parts, half = (found[name] for name in ("whole", "parts", "half"))
    assert [run["steps"] for run in found.values()] == [3, 3, 3]
    assert parts["weights"] == pytest.approx(whole["weights"], rel=1e-4, abs=1e-6)
    # Half precision moves half of the bytes, and rounds a gradient by at most 2^-11 of it.
    assert half["gradient_bytes"] * 2 == whole["gradient_bytes"]
    assert half["weights"] == pytest.approx(whole["weights"], rel=1e-2, abs=1e-3)
    assert half["weights"] != whole["weights"]
