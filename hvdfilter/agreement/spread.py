"""Rows of an array that lies over the ranks, dealt anew: to owners, or to those who save them.

Each rank holds a run of consecutive rows, the runs in the order of the ranks; some may be empty. So
what is saved does not depend on the number of ranks, and can be taken up by any other number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.partition import Blocks

Bounds = NDArray[np.int64]


def redistribute(rows: NDArray[Any], bounds: Bounds, collective: Collective) -> NDArray[Any]:
    """The rows ``[bounds[rank], bounds[rank + 1])`` of the whole array. Collective.

    rows: [n, ...], this rank's run, of one dtype and shape of a row on all ranks. bounds: int64
    [size + 1], ascending from 0 to the length of the whole, the same on all ranks.
    """
    start = int(collective.exscan(np.array([len(rows)], np.int64))[0])
    cuts = np.clip(bounds - start, 0, len(rows))
    rows = np.ascontiguousarray(rows)
    parts = [
        rows[cuts[rank] : cuts[rank + 1]].reshape(-1).view(np.uint8)
        for rank in range(collective.size)
    ]
    joined = np.concatenate(collective.alltoall(parts)).view(rows.dtype)
    count = int(bounds[collective.rank + 1] - bounds[collective.rank])
    return joined.reshape(count, *rows.shape[1:])


def owners(blocks: Blocks) -> Bounds:
    """By which every rank holds the samples that it owns."""
    return np.array([*map(blocks.start, range(blocks.size)), blocks.num_samples], np.int64)


def parts_of(total: int, parts: int, size: int) -> Bounds:
    """By which the first `parts` ranks hold `total` rows, as many each, and the others none."""
    return total * np.minimum(np.arange(size + 1, dtype=np.int64), parts) // parts


def gather_parts(rows: NDArray[Any], parts: int, collective: Collective) -> NDArray[Any]:
    """The rows of all ranks, on the first `parts` of them; with 1, all on rank 0. Collective."""
    total = int(collective.allreduce(np.array([len(rows)], np.int64))[0])
    return redistribute(rows, parts_of(total, parts, collective.size), collective)
