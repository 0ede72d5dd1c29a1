"""Density: how crowded the features are around a sample: in a dense region, one more adds little.

The distance to the k-th nearest of some landmarks, the k-nearest-neighbour estimate of a density
(Loftsgaarden and Quesenberry 1965) but for a constant and a power: the order is the same, and it
needs no bandwidth. Landmarks are samples chosen by a hash of their ids, so the same on any number
of ranks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.agreement import Collective, random
from hvdfilter.features.standard import chunks

LANDMARKS = 1024  # 8 MB of 2,048 features: gathered once, and a distance of each to every sample
NEIGHBOUR = 8  # the 1st is noisy, and of two equal samples 0
STREAM = 0xFEA7  # of the hash, apart from the streams of policies


def neighbour_distance(
    features: Tensor, ids: NDArray[np.int64], seed: int, collective: Collective
) -> NDArray[np.float32]:
    """Collective. Distance of each sample to its k-th nearest landmark but itself, float32 [n].

    features: float32 [n, d] of this rank, standardised; ids: of its rows, each id on one rank. k is
    `NEIGHBOUR`, or the number of other landmarks where those are fewer; 0 where there is none.
    O(n d) time for each landmark; memory for 4,096 samples' distances at once.
    """
    chosen, landmarks = _landmarks(features, ids, seed, collective)
    distances = torch.zeros(len(features), dtype=torch.float64)
    k = min(NEIGHBOUR, len(chosen) - 1)
    if k < 1:
        return distances.float().numpy()
    landmarks = landmarks.double()
    lengths = landmarks.square().sum(1)
    for part, rows in chunks(features):
        # In float64 this form loses nothing that a float32 distance would show.
        squares = rows.square().sum(1, keepdim=True) + lengths - 2 * rows @ landmarks.T
        squares[torch.from_numpy(ids[part][:, None] == chosen)] = torch.inf
        distances[part] = squares.kthvalue(k, dim=1).values.clamp(min=0).sqrt()
    return distances.float().numpy()


def _landmarks(
    features: Tensor, ids: NDArray[np.int64], seed: int, collective: Collective
) -> tuple[NDArray[np.int64], Tensor]:
    """Collective. Ids, ascending, and features of the samples with the smallest hashes."""
    hashes = random.hash64(seed, 0, ids, STREAM)
    # Those of all ranks are among each rank's smallest.
    few = np.sort(np.concatenate(collective.allgather(np.sort(hashes)[:LANDMARKS])))[:LANDMARKS]
    mine = np.isin(hashes, few)
    chosen = np.concatenate(collective.allgather(ids[mine]))
    rows = features[torch.from_numpy(mine)].reshape(-1).numpy()
    everyone = np.concatenate(collective.allgather(rows)).reshape(len(chosen), features.shape[1])
    order = np.argsort(chosen)
    return chosen[order], torch.from_numpy(everyone[order])
