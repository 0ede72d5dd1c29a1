"""The saved state of a Filter: all that is needed to go on, on any number of ranks.

Plain values and tensors: what all ranks know is complete on rank 0; what is known of each sample
are `rows`, of which the first ranks hold a part each. It writes no file; nothing needs pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.agreement import Draws, KeepMask, ScoreBook, Strata
from hvdfilter.agreement.spread import gather_parts, owners, parts_of, redistribute
from hvdfilter.errors import InputError, on_all_ranks
from hvdfilter.filter.arguments import Arguments
from hvdfilter.filter.planning import Agreed

Array = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """How far a run has come, beside its score book.

    closed: no epoch is open. trained: what the epoch trains, its weights those of this rank's
    block. sampler: the state of the `ShardSampler`. overview: what is said of the epoch.
    noted_since: the first epoch whose mask the columns of `history` count.
    """

    epoch: int
    closed: bool
    lr_scale: float
    trained: Agreed
    sampler: dict[str, Any]
    overview: dict[str, Any]
    noted_since: int


# Everything of a place that is no tensor.
SCALARS = ("epoch", "closed", "lr_scale", "sampler", "overview", "noted_since")
# What states of an earlier version lack.
_ADDED: dict[str, Any] = {"overview": {}, "noted_since": 0}
# By which a state with history is told from one without.
_HISTORY = "column/hidden_epochs"


def pack(arguments: Arguments, place: Place, book: ScoreBook, parts: int) -> dict[str, Any]:
    """Collective. The state of a filter.

    parts: how many ranks, the first ones, are given `rows`, a part each: the columns of the book
    and the weights by sample, and the observations that no exchange has moved yet.
    """
    mask, draws, block = place.trained
    strata = draws.codes if isinstance(draws, Strata) else np.empty(0, np.uint16)
    drawn = draws.draws if isinstance(draws, Strata) else draws
    planes = drawn.planes if isinstance(drawn, Draws) else [mask]
    ids, values = book.take_pending()
    book.put_pending(ids, values)
    pending = {"count": np.array([len(ids)], np.int64), "ids": ids, **values}
    nothing = np.empty(0, np.float32)
    each = {
        "weight": nothing if block is None else block,
        **{f"pending/{name}": rows for name, rows in pending.items()},
    }
    rows = {name: gather_parts(part, parts, book.collective) for name, part in each.items()}
    rows |= {f"column/{name}": part for name, part in book.gather(parts).items()}
    return {
        **arguments.identity(),
        "epoch": place.epoch,
        "closed": place.closed,
        "lr_scale": place.lr_scale,
        # A row of bits for each plane of the draws, see `Draws`; one where none is repeated.
        "mask": torch.from_numpy(np.stack([plane.packed for plane in planes])),
        # Bytes, since torch 2.4 knows little of uint16; none where there are no strata.
        "strata": torch.from_numpy(strata.view(np.uint8)),
        "sampler": place.sampler,
        "overview": place.overview,
        "noted_since": place.noted_since,
        "rows": {name: torch.from_numpy(part) for name, part in rows.items()},
    }


def unpack(state: Mapping[str, Any], arguments: Arguments, book: ScoreBook) -> Place:
    """Collective. Fill the book and return the place.

    What rank 0 holds counts; of `rows` every rank may hold a run, in the order of the ranks. Raises
    `InputError`, on every rank, when `state` was saved for other arguments.
    """
    collective, identity = book.collective, arguments.identity()
    first = collective.rank == 0
    names = (*identity, *SCALARS)
    state = {**_ADDED, **state} if state else state
    with collective.errors_shared():
        if first and (missing := [name for name in (*names, "rows") if name not in state]):
            raise InputError(f"this is not the state of a Filter: it has no {missing[0]!r}")
    told = {name: state[name] for name in names} if first else {}
    if first and _HISTORY not in state["rows"]:  # then it begins here
        told["noted_since"] = told["epoch"] + bool(told["closed"])
    saved = json.loads(collective.broadcast_bytes(json.dumps(told).encode()))
    collective.share_error(_mismatch(saved, identity))
    rows = {name: np.asarray(part) for name, part in state.get("rows", {}).items()}
    book.scatter(_under("column/", rows))
    block = None
    weight = rows.get("weight", np.empty(0, np.float32))
    if collective.allreduce(np.array([weight.size], np.int64))[0]:
        block = redistribute(weight, owners(book.blocks), collective).copy()
    _put_pending(_under("pending/", rows), book)
    packed = np.asarray(state["mask"]) if first else None
    codes = np.asarray(state["strata"]) if first else None
    planes = [KeepMask(row, arguments.num_samples) for row in collective.broadcast(packed)]
    drawn = Draws(planes) if len(planes) > 1 else planes[0]
    mask = drawn.mask if isinstance(drawn, Draws) else drawn
    draws = drawn if isinstance(drawn, Draws) else None
    codes = collective.broadcast(codes).view(np.uint16)
    trained = Agreed(mask, Strata(drawn, codes) if codes.size else draws, block)
    closed, scale = bool(saved["closed"]), float(saved["lr_scale"])
    said = saved["sampler"], saved["overview"], int(saved["noted_since"])
    return Place(int(saved["epoch"]), closed, scale, trained, *said)


def columns_of(rows: Mapping[str, Any], book: ScoreBook) -> dict[str, Array]:
    """Collective. The columns of saved `rows`, as this rank's block of the samples of `book`."""
    columns = {name: np.asarray(rows) for name, rows in _under("column/", rows).items()}
    collective = book.collective
    kinds = {name: [column.dtype.str, column.shape[1:]] for name, column in columns.items()}
    text = collective.broadcast_bytes(json.dumps(kinds).encode()).decode()
    bounds = owners(book.blocks)
    return {
        name: redistribute(columns.get(name, np.empty((0, *shape), kind)), bounds, collective)
        for name, (kind, shape) in json.loads(text).items()
    }


def _under(prefix: str, rows: Mapping[str, Array]) -> dict[str, Array]:
    return {name[len(prefix) :]: part for name, part in rows.items() if name.startswith(prefix)}


def _put_pending(rows: Mapping[str, Array], book: ScoreBook) -> None:
    """Collective. Hand out the observations that were waiting, to the ranks that made them."""
    collective = book.collective
    counts = np.concatenate(collective.allgather(rows.get("count", np.empty(0, np.int64))))
    total, size = int(counts.sum()), collective.size
    bounds = parts_of(total, size, size)
    if len(counts) == size:
        bounds = np.concatenate([[0], np.cumsum(counts)])
    # On another number of ranks too in their order, by which the last one of a sample counts.
    kinds: dict[str, Any] = {"ids": np.int64}
    kinds |= {name: bool if name == "correct" else np.float32 for name in book.observed}
    held = np.array([len(rows.get(name, ())) for name in kinds], np.int64)
    for name, found in zip(kinds, collective.allreduce(held).tolist(), strict=True):
        if found != total:
            raise on_all_ranks(
                f"the saved filter noted no {name} of {total} samples that it had trained: go on "
                "from a checkpoint taken between epochs, or with the history=... it was saved with"
            )
    mine = {
        name: redistribute(rows.get(name, np.empty(0, kind)).astype(kind), bounds, collective)
        for name, kind in kinds.items()
    }
    book.put_pending(mine.pop("ids"), mine)


def _mismatch(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> InputError | None:
    for name, mine in identity.items():
        if saved[name] != mine:
            return InputError(
                f"the saved filter has {name}={saved[name]} but this one has {name}={mine}: "
                "continue with the options the run was started with"
            )
    return None
