"""`hvdfilter sharpness` on real ranks: each goes over its share, and all find what one would."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import hvdfilter as hf
from hvdfilter import cli
from hvdfilter.sharpness import MeanLoss, largest_eigenvalue
from hvdfilter.sharpness.mean_loss import Vector
from hvdfilter.training import sharp_run
from tests.distributed.launch import check_ranks, run_command
from tests.distributed.test_train import launch

pytestmark = pytest.mark.distributed


class Watched(MeanLoss):
    """Keeps a digest of all vectors that the Hessian is multiplied with."""

    bits = b""

    def product(self, vector: Vector) -> tuple[Vector, float]:
        self.bits = hashlib.sha256(self.bits + vector.tobytes()).digest()
        return super().product(vector)


def measured() -> str:
    """What a rank finds of its share of 90 samples, and its digest."""
    world = hf.init()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 20), torch.nn.Tanh(), torch.nn.Linear(20, 5))
    x, y = torch.randn(90, 8), torch.randint(5, (90,))
    mine = slice(world.rank, None, world.size)
    loss = Watched(model, [(x[mine], y[mine])])
    found = largest_eigenvalue(loss)
    return f"{found.value!r} {found.products} {found.converged} {loss.bits.hex()}"


RANK = """
from tests.distributed.test_sharpness import measured
line = f"<{measured()}>\\n"
print(line, end="", flush=True)
"""


def test_all_ranks_hold_the_same_vectors_and_find_what_one_does() -> None:
    alone = measured().split()
    said = check_ranks(RANK, 3, timeout=60)
    lines = [part.split(">")[0] for part in said.split("<")[1:]]
    assert len(lines) == 3 and len(set(lines)) == 1, said
    value, products, converged, _ = lines[0].split()
    # The batches differ, so products differ in the last bits of float32.
    assert float(value) == pytest.approx(float(alone[0]), rel=1e-5)
    assert [products, converged] == alone[1:3]


def test_figures_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    # 200 samples are four batches, the last of 8, for two ranks; three are above.
    options = ["--data", "synthetic:200,1,8,8,4", "--model", "cnn:4", "--epochs", "2"]
    assert cli.main(["train", *options, "--runs", str(tmp_path), "--name", "run"]) == 0
    command = ["sharpness", str(tmp_path / "run"), "--landscape", "--points", "3"]
    assert cli.main(command) == 0
    alone, grid = figures(tmp_path / "run")
    done = run_command(launch(2, *command), timeout=100)
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
