"""Samples: what is known of every sample of a set, one array a score, from a run or a score file.

It reads files and needs no launcher, no model and no data set. It computes no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.agreement import SoloCollective
from hvdfilter.data.arrow import reading
from hvdfilter.errors import InputError
from hvdfilter.policies import score_file
from hvdfilter.training.checkpoints import finished, run_of
from hvdfilter.training.run_files import read_config
from hvdfilter.world import World

_COLUMN = "column/"


@dataclass(frozen=True)
class Samples:
    """N samples; row i of every array is sample i.

    source: where it was read. labels: int64 [N], -1 where the run was given none. columns: [N]
    each, not finite where no score was observed. epochs: how many the run had finished.
    noted_since: how many of them were over when it began to note, as where a run goes on that an
    older version, or a script without history, had begun.
    """

    source: Path
    labels: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    epochs: int
    noted_since: int = 0

    @property
    def noted_epochs(self) -> int:
        """How many epochs counts such as `hidden_epochs` are of."""
        return self.epochs - self.noted_since

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.labels)

    def column(self, name: str) -> NDArray[Any]:
        """One of the columns; `InputError` where it was not noted."""
        if name not in self.columns:
            has = ", ".join(sorted(self.columns)) or "nothing"
            raise InputError(
                f"{self.source} has no {name} of its samples (it has: {has}): `hvdfilter train` "
                "notes it, and a script's hf.Filter(..., history=True)"
            )
        return self.columns[name]


def samples_of(run: Path) -> Samples:
    """What a run noted of each sample, by its newest checkpoint, or the one that `run` names.

    Raises `InputError` for a folder that is no run, or has no whole checkpoint.
    """
    alone = World(0, 1, 0, torch.device("cpu"), SoloCollective())
    read_config(run_of(run)[0])
    state, rows = finished(run, alone)
    columns = {
        name.removeprefix(_COLUMN): np.asarray(rows[name])
        for name in rows
        if name.startswith(_COLUMN) and rows[name].ndim == 1
    }
    if "confidence" in columns and "age" in columns:  # whose initial value is a number
        columns["confidence"] = np.where(columns["age"] < 0, np.nan, columns["confidence"])
    number = int(state["filter"]["num_samples"])
    labels = columns.pop("label", np.full(number, -1))
    since = int(state["filter"].get("noted_since", 0))
    return Samples(run, labels.astype(np.int64), columns, int(state["epoch"]), since)


def samples_in(path: Path) -> Samples:
    """What a score file says of each sample; `InputError` for a file that is none."""
    with reading(path, "make it again with `hvdfilter score RUN`") as file:
        names, number = list(file.schema_arrow.names), file.metadata.num_rows
    if number < 1:
        raise InputError(f"{path} holds no samples")
    fields = [name for name in names if name not in ("id", "label")]
    found = dict(score_file.read(path, fields, 0, number, number))
    made = score_file.made(path)
    told = [made.get(name) for name in ("epochs", "noted_since")]
    epochs, since = (number if isinstance(number, int) else 0 for number in told)
    return Samples(path, found.pop("label"), found, epochs, since)


def open_samples(path: Path) -> Samples:
    """Of a run folder, a file of one of its checkpoints, or a score file, whichever `path` is."""
    return samples_in(path) if path.suffix == ".parquet" else samples_of(path)
