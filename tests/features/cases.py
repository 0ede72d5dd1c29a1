"""What the tests of the feature scores share: ranks as threads, features cut over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hvdfilter.agreement import Collective
from tests.agreement.worlds import run_world

Score = Callable[[torch.Tensor, np.ndarray, Collective], np.ndarray]


def on_ranks(ranks: int, features: np.ndarray, score: Score, seed: int = 0) -> np.ndarray:
    """What `score` gives of [N, d] features that lie on so many ranks in any order, by id.

    The last of several ranks has no sample at all, as where there are more ranks than bytes of
    mask.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    holders = max(1, ranks - 1)
    shares = [order[rank::holders] if rank < holders else order[:0] for rank in range(ranks)]

    def body(collective: Collective) -> np.ndarray:
        mine = shares[collective.rank]
        part = torch.from_numpy(features[mine]) if len(mine) else torch.empty(0, 0)
        return score(part, mine, collective)

    whole: np.ndarray | None = None
    for ids, values in zip(shares, run_world(ranks, body), strict=True):
        if whole is None:
            whole = np.empty((len(features), *values.shape[1:]), values.dtype)
        whole[ids] = values
    assert whole is not None
    return whole
