"""A checkpoint that is due is written once, at the same step on all ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.saving import Place
from hvdfilter.world import World, current
from tests.distributed.launch import check_ranks
from tests.training.cases import Told


def steps_saved(folder: Path, world: World, accumulate: int) -> list[int]:
    """The steps after which a run of 16 steps is saved, one being due every three."""
    config = TrainConfig(
        runs=folder, name=f"by-{accumulate}", epochs=1, limit=64 * accumulate * world.size,
        batch_size=4, accumulate=accumulate, model="cnn:4", warmup_epochs=0, policy="full",
    )  # fmt: skip
    run = Trainer(config, world)
    saved: list[int] = []
    save = run.saving.save

    def note(place: Place, consumed: int) -> None:
        saved.append(place.step)
        save(place, consumed)

    run.saving.save = note  # type: ignore[method-assign]
    run.saving.due = lambda _: run.step - (saved[-1] if saved else 0) >= 3  # type: ignore[method-assign]
    run.run_epoch(Told(), lambda *_: None)  # type: ignore[arg-type]
    run.saving.settle()
    return saved


@pytest.mark.parametrize("accumulate", [1, 3])
def test_alone_it_is_written_a_step_after_it_is_due(accumulate: int, tmp_path: Path) -> None:
    # Due after step 3, asked for with the flag of step 4.
    assert steps_saved(tmp_path, current(), accumulate) == [4, 8, 12]


PROGRAM = """
import json, sys
from pathlib import Path
import torch
from hvdfilter.training import ring
from tests.training.test_due import steps_saved

torch.set_num_threads(1)
world = ring.start()
for accumulate in (1, 3):
    print(json.dumps([accumulate, steps_saved(Path(sys.argv[1]), world, accumulate)]), flush=True)
"""


@pytest.mark.distributed
def test_on_two_ranks_it_is_written_once_and_by_both(tmp_path: Path) -> None:
    said = check_ranks(PROGRAM, 2, str(tmp_path)).splitlines()
    found = [json.loads(line) for line in said if line.startswith("[")]
    assert len(found) == 4
    for accumulate in (1, 3):
        one, other = (steps for each, steps in found if each == accumulate)
        assert one == other and len(one) >= 3
        # A flag travels for a step before all ranks know: never two in a row, nor one too few.
        assert all(3 <= b - a <= 5 for a, b in zip([0, *one], one, strict=False))
