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

from hvdfilter.agreement import Draws, KeepMask, ScoreBook, Strata
from hvdfilter.agreement.whole import gather_blocks, scatter_blocks
from hvdfilter.errors import InputError
from hvdfilter.filter.arguments import Arguments
from hvdfilter.filter.planning import Agreed


@dataclass(frozen=True)
class Place:
    """How far a run has come, beside its score book.

    closed: no epoch is open. trained: what the epoch trains, its weights those of this rank's
    block. sampler: the state of the `ShardSampler`.
    """

    epoch: int
    closed: bool
    lr_scale: float
    trained: Agreed
    sampler: dict[str, Any]


# Everything of a place that is no tensor.
SCALARS = ("epoch", "closed", "lr_scale", "sampler")


def pack(arguments: Arguments, place: Place, book: ScoreBook) -> dict[str, Any]:
    """Collective. The state of a filter; the columns of the book are empty but on rank 0."""
    columns = {name: torch.from_numpy(column) for name, column in book.gather().items()}
    mask, draws, block = place.trained
    strata = draws.codes if isinstance(draws, Strata) else np.empty(0, np.uint16)
    drawn = draws.draws if isinstance(draws, Strata) else draws
    planes = drawn.planes if isinstance(drawn, Draws) else [mask]
    nothing = np.empty(0, np.float32)
    weight = nothing if block is None else gather_blocks(block, book.collective)
    return {
        **arguments.identity(),
        "epoch": place.epoch,
        "closed": place.closed,
        "lr_scale": place.lr_scale,
        # A row of bits for each plane of the draws, see `Draws`; one where none is repeated.
        "mask": torch.from_numpy(np.stack([plane.packed for plane in planes])),
        "weight": torch.from_numpy(weight),
        # Bytes, since torch 2.4 knows little of uint16; none where there are no strata.
        "strata": torch.from_numpy(strata.view(np.uint8)),
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
    columns = packed = weight = codes = None
    if first:
        columns = {name: np.asarray(column) for name, column in state["columns"].items()}
        packed, weight = np.asarray(state["mask"]), np.asarray(state["weight"])
        codes = np.asarray(state["strata"])
    book.scatter(columns)
    planes = [KeepMask(row, arguments.num_samples) for row in collective.broadcast(packed)]
    drawn = Draws(planes) if len(planes) > 1 else planes[0]
    mask = drawn.mask if isinstance(drawn, Draws) else drawn
    draws = drawn if isinstance(drawn, Draws) else None
    codes = collective.broadcast(codes).view(np.uint16)
    block = None
    weighted = collective.broadcast(None if weight is None else np.array([weight.size], np.int64))
    if weighted[0]:
        like = np.empty(book.length, np.float32)
        block = scatter_blocks(weight, like, book.blocks, collective)
    trained = Agreed(mask, Strata(drawn, codes) if codes.size else draws, block)
    closed, scale = bool(saved["closed"]), float(saved["lr_scale"])
    return Place(int(saved["epoch"]), closed, scale, trained, saved["sampler"])


def _mismatch(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> InputError | None:
    for name, mine in identity.items():
        if saved[name] != mine:
            return InputError(
                f"the saved filter has {name}={saved[name]} but this one has {name}={mine}: "
                "continue with the options the run was started with"
            )
    return None
