"""How sharp the minima of finished runs are: `hvdfilter sharpness RUN`.

Leaves `sharpness.json` in the run folder, and `landscape.npz` where a picture was asked for. Both
are of the mean cross-entropy over the run's training samples, hidden ones too, without
augmentation and weight decay: the same function for a filtered run as for a full one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from hvdfilter.errors import InputError
from hvdfilter.sharpness import (
    Eigenvalue,
    Landscape,
    MeanLoss,
    landscape,
    largest_eigenvalue,
)
from hvdfilter.training import ring
from hvdfilter.training.finished import FinishedRun, dealt, open_run, refuse_different_data
from hvdfilter.world import World

FILE, GRID_FILE = "sharpness.json", "landscape.npz"


@dataclass(frozen=True)
class Picture:
    """What of the surroundings to draw: as `hvdfilter.sharpness.landscape` takes it."""

    points: int = 21
    span: float = 1.0


@dataclass(frozen=True)
class Sharpness:
    """What was found of one run."""

    run: Path
    label: str
    eigenvalue: Eigenvalue
    landscape: Landscape | None


def measure_runs(
    runs: Sequence[Path], picture: Picture | None = None, limit: int | None = None, seed: int = 0
) -> list[Sharpness]:
    """Collective. The sharpness of finished runs of one data set, and pictures of the same scale.

    limit: only the first training samples; seed: of the start of the iteration and of the
    directions. Each rank takes its share of the samples. Raises `InputError` on every rank for a
    folder that is no finished run, runs of different samples, or a loss that is not finite.
    """
    world = ring.start()
    with world.collective.errors_shared():
        if limit is not None and limit < 1:
            raise InputError(f"limit must be at least 1 sample, not {limit}.")
    refuse_different_data(runs, "eigenvalues", world)
    found: list[Sharpness] = []
    for run in runs:
        found.append(_measure(run, picture, limit, seed, world))
        first, last = found[0].eigenvalue.samples, found[-1].eigenvalue.samples
        with world.collective.errors_shared():
            if first != last:
                raise InputError(
                    f"{run} was trained on {last} samples and {runs[0]} on {first}: compare them "
                    f"on as many, --limit {min(first, last)}"
                )
    return found


def _measure(
    run: Path, picture: Picture | None, limit: int | None, seed: int, world: World
) -> Sharpness:
    finished = open_run(run, world)
    samples = min(limit or len(finished.train_set), len(finished.train_set))
    loss = MeanLoss(finished.network, _Batches(finished, samples, world), world=world)
    eigenvalue = largest_eigenvalue(loss, seed=seed)
    grid = None
    if picture is not None:
        grid = landscape(loss, points=picture.points, span=picture.span, seed=seed)
    result = Sharpness(run, finished.label, eigenvalue, grid)
    with world.collective.errors_shared():
        if world.rank == 0:
            _write(result, finished, seed)
    return result


class _Batches:
    """This rank's batches of the first samples, on its device; may be gone over again."""

    def __init__(self, finished: FinishedRun, samples: int, world: World) -> None:
        self._images, self._samples, self._world = finished.train_set, samples, world

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        device = self._world.device
        for ids in dealt(self._samples, self._world):
            x, y = self._images.batch(ids)
            yield x.to(device), y.to(device)


def _write(result: Sharpness, finished: FinishedRun, seed: int) -> None:
    said = {
        "data": finished.data,
        "epochs": finished.state["epoch"],
        "seed": seed,
        **asdict(result.eigenvalue),
    }
    try:
        (result.run / FILE).write_text(json.dumps(said) + "\n")
        if (grid := result.landscape) is not None:
            np.savez(result.run / GRID_FILE, steps=grid.steps, loss=grid.loss)
    except OSError as failed:
        raise InputError(f"{result.run} cannot be written to: {failed.strerror}") from None
