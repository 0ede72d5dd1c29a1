"""`hvdfilter sharpness` on real ranks: each goes over its share, and all find what one would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hvdfilter import cli
from hvdfilter.training import sharp_run
from tests.distributed.launch import check_ranks, run_command
from tests.distributed.test_train import launch

pytestmark = pytest.mark.distributed

# Every rank prints what it found and a digest of all vectors it has multiplied by.
WATCHED = """
import hashlib, torch, hvdfilter as hf
from hvdfilter.sharpness import MeanLoss, largest_eigenvalue
world = hf.init()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 20), torch.nn.Tanh(), torch.nn.Linear(20, 5))
x, y = torch.randn(90, 8), torch.randint(5, (90,))
bits = hashlib.sha256()
class Watched(MeanLoss):
    def product(self, vector):
        bits.update(vector.tobytes())
        return super().product(vector)
found = largest_eigenvalue(Watched(model, [(x[world.rank::world.size], y[world.rank::world.size])]))
line = f"<{found.value!r} {found.products} {found.converged} {bits.hexdigest()}>\\n"
print(line, end="", flush=True)
"""


def test_all_ranks_hold_the_same_vectors_and_find_what_one_does() -> None:
    found = {}
    for ranks in (1, 2, 3):
        said = check_ranks(WATCHED, ranks, timeout=60)
        lines = [part.split(">")[0] for part in said.split("<")[1:]]
        assert len(lines) == ranks and len(set(lines)) == 1, said
        found[ranks] = lines[0].split()
    for ranks in (2, 3):
        # The batches differ, so products differ in the last bits of float32.
        assert float(found[ranks][0]) == pytest.approx(float(found[1][0]), rel=1e-5)
        assert found[ranks][1:3] == found[1][1:3]


def test_figures_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    # 200 samples are four batches, the last of 8: shares of 2, 1 and 1.
    options = ["--data", "synthetic:200,1,8,8,4", "--model", "cnn:4", "--epochs", "2"]
    assert cli.main(["train", *options, "--runs", str(tmp_path), "--name", "run"]) == 0
    command = ["sharpness", str(tmp_path / "run"), "--landscape", "--points", "3"]
    assert cli.main(command) == 0
    alone, grid = figures(tmp_path / "run")
    done = run_command(launch(3, *command), timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.count("largest eigenvalue") == 1
    shared, shared_grid = figures(tmp_path / "run")
    # Every batch gives the same bits wherever it is; sums in float64 differ in the last one, which
    # now and then turns a weight of float32.
    assert shared.pop("data") == alone.pop("data") and alone["converged"]
    assert shared == pytest.approx(alone, rel=1e-6)
    assert shared_grid == pytest.approx(grid, rel=1e-12)


def figures(run: Path) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """What the command left, and takes away."""
    with np.load(run / sharp_run.GRID_FILE) as grid:
        found = json.loads((run / sharp_run.FILE).read_text()), grid["loss"].copy()
    (run / sharp_run.FILE).unlink()
    (run / sharp_run.GRID_FILE).unlink()
    return found
