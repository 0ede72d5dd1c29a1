"""Three ranks, whose sums depend on their order: `--reproducible` repeats bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launch import check_ranks

PROGRAM = """
import sys
from pathlib import Path
import torch
from hvdfilter.training.checkpoint import digest
from hvdfilter.training.checkpoints import finished
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
from hvdfilter.world import current

torch.set_num_threads(1)
train(TrainConfig(
    runs=Path(sys.argv[1]), name=sys.argv[2], limit=240, batch_size=8, epochs=2, model="cnn:8",
    warmup_epochs=0, reproducible=True,
))
model = finished(Path(sys.argv[1]) / sys.argv[2], current()).state["model"]
if current().rank == 0:
    print(digest(b"".join(model[name].numpy().tobytes() for name in sorted(model))), flush=True)
"""


@pytest.mark.distributed
def test_three_ranks_repeat_bit_for_bit(tmp_path: Path) -> None:
    said = {check_ranks(PROGRAM, 3, str(tmp_path), name).split()[-1] for name in ("a", "b")}
    assert len(said) == 1
