"""Samples' own gradients, kept as candidates for centres: the last few that each rank has seen.

Draws by a seed, the same on all ranks; holds no model and no gradient larger than a centre.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from hvdfilter.agreement import Collective

# Candidates of all ranks for each centre: enough to meet groups of some percent of the samples.
CANDIDATES = 8
# Samples kept of a batch before there are centres; after, one in as many batches.
FIRST, EVERY = 8, 2
# Candidates that each step of the choice looks at, as public k-means++ does: 2 + ln 16.
LOOKS = 5


class Picks:
    """A rank's candidates: centres [width] and how badly the present clusters suit them."""

    def __init__(self, ranks: int, number: int) -> None:
        self._held: deque[tuple[Tensor, Tensor]] = deque(maxlen=-(-CANDIDATES * number // ranks))

    def add(self, rows: Tensor, misfit: Tensor) -> None:
        """rows [n, width], misfit [n]: the oldest make room."""
        self._held.extend(zip(rows.cpu(), misfit.double().cpu(), strict=True))

    def rows(self, width: int) -> Tensor:
        """[n, 1 + width], float64: misfit and centre of each, oldest first."""
        if not self._held:
            return torch.zeros(0, 1 + width, dtype=torch.float64)
        return torch.stack([torch.cat((m[None], row.double())) for row, m in self._held])

    def gather(self, width: int, collective: Collective) -> list[Tensor]:
        """Collective. The `rows` of every rank."""
        parts = collective.allgather(self.rows(width).flatten().numpy())
        return [torch.from_numpy(part).view(-1, 1 + width) for part in parts]

    def one(self, width: int, seed: list[int], collective: Collective) -> Tensor:
        """Collective. One candidate [width] of any rank, drawn in proportion to its misfit."""
        mine = self.rows(width)
        parts = collective.allgather(mine[:, 0].numpy())
        at = int(_draw(np.concatenate(parts), np.random.default_rng(seed), 1)[0])
        starts = np.cumsum([0, *(part.size for part in parts)])
        root = int(np.searchsorted(starts, at, side="right")) - 1
        row = mine[at - starts[root], 1:].numpy() if collective.rank == root else None
        return torch.from_numpy(collective.broadcast(row, root))

    def replace(self, rows: Tensor) -> None:
        """By what `rows` returned."""
        self._held.clear()
        for row in rows:
            self._held.append((row[1:], row[0]))


def apart(squared: Tensor, k: int, seed: int) -> list[int]:
    """The numbers of k candidates far from each other, as k-means++ draws them.

    squared [n, n]: their squared distances. Arthur, Vassilvitskii, "k-means++: the advantages of
    careful seeding", 2007; of several draws the one that leaves the least is taken.
    """
    distances = squared.numpy()
    draw = np.random.default_rng(seed)
    chosen = [int(draw.integers(len(distances)))]
    nearest = distances[chosen[0]].copy()
    while len(chosen) < k:
        looks = _draw(nearest, draw, LOOKS)
        left = [np.minimum(nearest, distances[look]).sum() for look in looks]
        chosen.append(int(looks[int(np.argmin(left))]))
        np.minimum(nearest, distances[chosen[-1]], out=nearest)
    return chosen


def _draw(share: np.ndarray, draw: np.random.Generator, count: int) -> np.ndarray:
    """Numbers in proportion to `share`; evenly where all of it is zero."""
    edges = np.cumsum(share if share.sum() > 0 else np.ones_like(share))
    at = np.searchsorted(edges, draw.random(count) * edges[-1], side="right")
    return np.minimum(at, len(share) - 1)
