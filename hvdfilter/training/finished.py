"""A finished run, opened again: its network with the weights of its last epoch, and its data.

What `hvdfilter score`, `robustness` and `sharpness` begin with. Nothing of the run is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter import models
from hvdfilter.data import Images, Normalize, open_dataset
from hvdfilter.errors import InputError
from hvdfilter.training import checkpoints
from hvdfilter.training.opened import refuse_other_data
from hvdfilter.training.record import recorded
from hvdfilter.training.run_files import read_config, read_settings
from hvdfilter.world import World

# Samples that a rank takes at once. Batches are cut by this number and dealt out whole, so that a
# sample meets the same neighbours, and gets the same result, on any number of ranks.
BATCH = 64


@dataclass(frozen=True)
class FinishedRun:
    """A run as its folder tells it.

    network: uint8 images -> logits, in eval mode on this rank's device; train_set: what the run
    was trained on, hidden samples too; state, rows: of the checkpoint, see `Saved`.
    """

    folder: Path
    config: dict[str, Any]
    data: str
    architecture: str
    train_set: Images
    network: torch.nn.Module
    state: dict[str, Any]
    rows: dict[str, Any]

    @property
    def label(self) -> str:
        """What a table or a picture calls it."""
        return f"{self.folder.name} ({self.config['policy']})"


def open_run(path: Path, world: World, decode: bool = True) -> FinishedRun:
    """Collective. Raises `InputError` on every rank for a folder that is no finished run.

    path: of the run, or of a file of one of its checkpoints, whose weights are then taken.
    decode: whether all encoded images are decoded now, where they fit in memory.
    """
    with world.collective.errors_shared():
        run, _ = checkpoints.run_of(path)
        config = read_settings(run)
        data = recorded(config, "data", run)
        architecture = recorded(config, "model", run)
        train_set = open_dataset(data, train=True, limit=config["limit"], decode=decode)
        channels, height, _ = train_set.shape
        model = models.make(architecture, channels, train_set.num_classes, height)
    refuse_other_data(data, {"training": train_set}, world)
    state, rows = checkpoints.finished(path, world)
    with world.collective.errors_shared():
        model.load_state_dict(state["model"])
    prepare = Normalize(train_set.mean, train_set.std)
    network = torch.nn.Sequential(prepare, model).to(world.device).eval()
    return FinishedRun(run, config, data, architecture, train_set, network, state, rows)


def refuse_different_data(runs: Sequence[Path], figures: str, world: World) -> None:
    """Collective. `InputError` unless all runs were trained on one data set.

    figures: what of them would be compared, such as "radii".
    """
    with world.collective.errors_shared():
        sets = {run: recorded(read_config(run), "data", run) for run in runs}
        first = runs[0]
        for run in runs:
            if sets[run] != sets[first]:
                raise InputError(
                    f"{run} was trained on {sets[run]} and {first} on {sets[first]}: {figures} of "
                    "different data cannot be compared"
                )


def dealt(count: int, world: World) -> Iterator[NDArray[np.int64]]:
    """The ids of this rank's batches out of `count` samples."""
    for start in range(world.rank * BATCH, count, world.size * BATCH):
        yield np.arange(start, min(start + BATCH, count))
