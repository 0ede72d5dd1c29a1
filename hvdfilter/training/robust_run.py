"""The largest perturbations that the model of a run survives: `hvdfilter robustness RUN`.

Leaves `robustness.json` in the run folder: what was tried, and for each norm the radius found for
every test sample. Radii are in units where black is 0 and white is 1, and perturbed images stay
within those.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter import files
from hvdfilter.data import Images, open_dataset
from hvdfilter.robust import Attack, smallest_radius
from hvdfilter.robust.attack import SEARCHED
from hvdfilter.robust.norms import known
from hvdfilter.training import ring
from hvdfilter.training.finished import BATCH, dealt, open_run, refuse_different_data
from hvdfilter.world import World

FILE = "robustness.json"


@dataclass(frozen=True)
class Robustness:
    """What one run survives. radii: for each norm, float64 [N] in the order of the test set.

    A sample that is classified wrongly has 0, one that no attack changed is infinite.
    """

    run: Path
    label: str
    data: str
    radii: dict[str, NDArray[np.float64]]

    def survived(self, norm: str, radius: float) -> float:
        """Share of the test set that is right, and stays right within `radius`."""
        return float(np.mean(self.radii[norm] > radius))

    def median(self, norm: str) -> float:
        """What half of the test set survives."""
        return float(np.quantile(self.radii[norm], 0.5, method="lower"))

    def mean(self, norm: str) -> float:
        """Over the samples that some attack changed; NaN if there are none."""
        finite = self.radii[norm][np.isfinite(self.radii[norm])]
        return float(finite.mean()) if finite.size else float("nan")


def measure_runs(
    runs: Sequence[Path],
    norms: Sequence[str] = SEARCHED,
    how: Attack | None = None,
    limit: int | None = None,
) -> list[Robustness]:
    """Collective. Attack the models of finished runs of one data set, on its test samples.

    norms: of `l2` and `linf`; limit: only the first test samples. Each rank attacks its share of
    the batches. Raises `InputError` on every rank for a folder that is no finished run, runs of
    different data, or an unknown norm.
    """
    world = ring.start()
    how = how or Attack()
    with world.collective.errors_shared():
        for norm in norms:
            known(norm, SEARCHED, "norm to search in")
    refuse_different_data(runs, "radii", world)
    return [_measure(run, norms, how, limit, world) for run in runs]


def _measure(
    run: Path, norms: Sequence[str], how: Attack, limit: int | None, world: World
) -> Robustness:
    finished = open_run(run, world)
    with world.collective.errors_shared():
        images = open_dataset(finished.data, train=False, limit=limit, like=finished.train_set)
        network = torch.nn.Sequential(_Pixels(), finished.network).requires_grad_(False)
        mine = _attacked(network, images, norms, how, world)
    radii = {norm: _joined(mine[norm], len(images), world) for norm in norms}
    result = Robustness(run, finished.label, finished.data, radii)
    with world.collective.errors_shared():
        if world.rank == 0:
            _write(result, how, finished.state["epoch"])
    return result


class _Pixels(torch.nn.Module):
    """Images of [0, 1] as the grey levels that `Normalize` takes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 255


def _attacked(
    network: torch.nn.Module, images: Images, norms: Sequence[str], how: Attack, world: World
) -> dict[str, NDArray[np.float64]]:
    """The radii of this rank's batches, NaN for samples of other ranks."""
    radii = {norm: np.full(len(images), np.nan) for norm in norms}
    for ids in dealt(len(images), world):
        x, y = images.batch(ids)
        x, y = x.to(world.device).float() / 255, y.to(world.device)
        for norm in norms:
            found = smallest_radius(network, x, y, ids.tolist(), norm, how)
            radii[norm][ids] = found.double().cpu().numpy()
    return radii


def _joined(mine: NDArray[np.float64], count: int, world: World) -> NDArray[np.float64]:
    """The radii of all ranks in the order of the ids. Collective."""
    parts = world.collective.allgather(mine[~np.isnan(mine)])
    whole = np.empty(count)
    for rank, part in enumerate(parts):
        whole[(np.arange(count) // BATCH) % world.size == rank] = part
    return whole


def _write(result: Robustness, how: Attack, epoch: int) -> None:
    # JSON has no infinity: a sample that was never fooled is null.
    radii: dict[str, list[Any]] = {
        norm: [round(r, 7) if np.isfinite(r) else None for r in values.tolist()]
        for norm, values in result.radii.items()
    }
    said = {"data": result.data, "epochs": epoch, "attack": asdict(how), "radii": radii}
    files.write(result.run / FILE, json.dumps(said) + "\n")
