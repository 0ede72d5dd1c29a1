"""The saved state of a Filter: all that is needed to go on, on any number of ranks.

Plain values and tensors, complete on rank 0. It writes no file; nothing of it needs pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hvdfilter.agreement import KeepMask, ScoreBook
from hvdfilter.errors import InputError
from hvdfilter.filter.arguments import Arguments


@dataclass(frozen=True)
class Place:
    """How far a run has come, beside its score book.

    closed: no epoch is open. sampler: the state of the `ShardSampler`.
    """

    epoch: int
    closed: bool
    lr_scale: float
    mask: KeepMask
    sampler: dict[str, Any]


# Everything of a place that is no tensor.
SCALARS = ("epoch", "closed", "lr_scale", "sampler")


def pack(arguments: Arguments, place: Place, book: ScoreBook) -> dict[str, Any]:
    """Collective. The state of a filter; the columns of the book are empty but on rank 0."""
    columns = {name: torch.from_numpy(column) for name, column in book.gather().items()}
    return {
        **arguments.identity(),
        "epoch": place.epoch,
        "closed": place.closed,
        "lr_scale": place.lr_scale,
        "mask": torch.from_numpy(place.mask.packed.copy()),
        "columns": columns,
        "sampler": place.sampler,
    }


def unpack(state: Mapping[str, Any], arguments: Arguments, book: ScoreBook) -> Place:
    """Collective. Fill the book and return the place; what rank 0 holds counts.

    Raises `InputError`, on every rank, when `state` was saved for other arguments.
    """
    collective, identity = book.collective, arguments.identity()
    first = collective.rank == 0
    names = (*identity, *SCALARS)
    with collective.errors_shared():
        if first and (missing := [name for name in names if name not in state]):
            raise InputError(f"this is not the state of a Filter: it has no {missing[0]!r}")
    text = json.dumps({name: state[name] for name in names}) if first else ""
    saved = json.loads(collective.broadcast_bytes(text.encode()))
    collective.share_error(_mismatch(saved, identity))
    columns = packed = None
    if first:
        columns = {name: np.asarray(column) for name, column in state["columns"].items()}
        packed = np.asarray(state["mask"])
    book.scatter(columns)
    mask = KeepMask(collective.broadcast(packed), arguments.num_samples)
    return Place(
        int(saved["epoch"]), bool(saved["closed"]), float(saved["lr_scale"]), mask, saved["sampler"]
    )


def _mismatch(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> InputError | None:
    for name, mine in identity.items():
        if saved[name] != mine:
            return InputError(
                f"the saved filter has {name}={saved[name]} but this one has {name}={mine}: "
                "continue with the options the run was started with"
            )
    return None
