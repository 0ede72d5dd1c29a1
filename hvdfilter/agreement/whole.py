"""A column of all samples from the blocks of its owners, on rank 0, and back again.

What is saved is the same for any number of ranks, and so can be taken up by any other number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.partition import Blocks


def gather_blocks(block: NDArray[Any], collective: Collective) -> NDArray[Any]:
    """The column over all samples on rank 0, none of its rows elsewhere. Collective.

    block: [n, ...] of the samples this rank owns.
    """
    parts: list[NDArray[Any]] = [np.empty(0, np.uint8)] * collective.size
    parts[0] = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
    whole = np.concatenate(collective.alltoall(parts)).view(block.dtype)
    return whole.reshape(-1, *block.shape[1:])


def scatter_blocks(
    whole: NDArray[Any] | None, like: NDArray[Any], blocks: Blocks, collective: Collective
) -> NDArray[Any]:
    """This rank's block of a column that rank 0 holds. Collective.

    whole: [num_samples, ...] on rank 0. like: an array of the block's shape and dtype.
    """
    parts: list[NDArray[Any]] = [np.empty(0, np.uint8)] * blocks.size
    if collective.rank == 0:
        column = np.ascontiguousarray(whole, like.dtype)
        parts = [
            column[blocks.start(r) : blocks.stop(r)].reshape(-1).view(np.uint8)
            for r in range(blocks.size)
        ]
    return collective.alltoall(parts)[0].view(like.dtype).reshape(like.shape).copy()
