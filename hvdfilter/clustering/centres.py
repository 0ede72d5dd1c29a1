"""The centres of all clusters, and one more on trial: how near samples are, and how they move.

Every rank holds the same table, made from the same sums; what is chosen at random is chosen by the
seed. Nothing here sees a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hvdfilter.agreement import Collective
from hvdfilter.clustering.picks import FIRST, Picks, apart
from hvdfilter.clustering.shares import Share
from hvdfilter.clustering.spread import FLOOR, Tally, costs, spreads
from hvdfilter.errors import on_all_ranks


class Centres:
    """M + 1 rows of the columns of all shares, float32 (float64 for such a model).

    table: None in the first epoch. kin: whose inner factors the last row, on trial, has in
    convolutions. sigma: float64 [M + 1], see `spread.py`. floor: what is added to squared
    distances. by_inner: which factor of the two the epoch's sums are for.
    """

    def __init__(self, shares: Sequence[Share], number: int, seed: int) -> None:
        self.shares, self.number, self.seed = shares, number, seed
        self.width = sum(share.width for share in shares)
        self.dtype = shares[0].dtype
        self.sigma = torch.ones(number + 1, dtype=torch.float64)
        self.floor = 0.0
        self.freeze(None, True, 0)

    def freeze(self, table: Tensor | None, by_inner: bool, kin: int) -> None:
        """Take these for the next epoch."""
        self.table = None if table is None else table.to(self.dtype)
        self.by_inner, self.kin = by_inner, kin
        self.lengths = torch.zeros(0, dtype=torch.float64)
        if self.table is not None:
            self.lengths = self.overlap(self.table, self.table).diagonal().clone()
        for share in self.shares:
            share.expect(self.table, by_inner, kin)

    def sum_widths(self) -> list[int]:
        """Numbers of an epoch's sums for a cluster, by share; none in the first epoch."""
        return [0 if self.table is None else s.sum_width(self.by_inner) for s in self.shares]

    def terms(self, squares: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances of the noted batch's gradients to the centres, and costs, [B, M + 1].

        squares [B]: of the samples' own gradients, which are `scale` [B] times what was noted.
        """
        products = squares.new_zeros(len(squares), self.number + 1)
        for share in self.shares:
            if (part := share.products()) is not None:
                products += part
        products *= scale[:, None]
        lengths, sigma = self.lengths.to(squares), self.sigma.to(squares)
        distances = (squares[:, None] - 2 * products + lengths).clamp(min=0)
        return distances, costs(distances, sigma, self.floor)

    def overlap(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products of centres a [n, width] and b [m, width], float64 [n, m]."""
        parts = [s.overlap(a[:, s.columns], b[:, s.columns]) for s in self.shares]
        return torch.stack(parts).sum(dim=0)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Squared distances of centres, float64 [n, m]."""
        sizes = [self.overlap(t, t).diagonal() for t in (a, b)]
        return (sizes[0][:, None] + sizes[1] - 2 * self.overlap(a, b)).clamp(min=0)

    def choose(self, tally: Tally, picks: Picks, collective: Collective) -> None:
        """Collective. The first ones, among the candidates, far from each other.

        Raises InputError, on all ranks, where there are fewer candidates than clusters.
        """
        rows = torch.cat(picks.gather(self.width, collective))[:, 1:]
        if len(rows) < self.number:
            raise on_all_ranks(
                f"GradientClusters kept {len(rows)} gradients in its first epoch, {FIRST} of a "
                f"batch at most, and can't choose {self.number} centres among them: take more "
                "batches before end_epoch(), or lower number"
            )
        far = apart(self.distances(rows, rows), min(self.number + 1, len(rows)), self.seed)
        at = torch.from_numpy(collective.broadcast(np.array(far, np.int64)))
        table = rows[at[torch.arange(self.number + 1).clamp(max=len(at) - 1)]]
        self.floor = _floor(tally)
        near = self.distances(rows, table[:-1]).amin(dim=1)
        sigma = float((near.mean() + self.floor).sqrt()) or 1.0
        self.sigma = torch.full((self.number + 1,), sigma, dtype=torch.float64)
        self.freeze(table, True, self._try(table, table[-1].clone()))

    def move(self, tally: Tally, sums: Tensor, trial: Tensor) -> int:
        """The next ones from an epoch's sums [M, ...]; `trial` [width] is tried in it.

        Either each moves to where its samples are, or one is given up for the one on trial,
        whichever leaves the lower bound on the objective. Returns the one given up, or -1.
        """
        assert self.table is not None
        table = self.table.cpu().double()
        moved, falls = table.clone(), torch.zeros_like(tally.scatter)
        for share, part in zip(self.shares, sums.split(self.sum_widths(), dim=1), strict=True):
            own = table[:-1, share.columns]
            moved[:-1, share.columns], fall = share.update(own, part, tally.sizes, self.by_inner)
            falls += fall
        given_up, by_inner = tally.exchange(falls, self.floor), self.by_inner
        self.floor = _floor(tally)
        if given_up < 0:
            table, by_inner = moved, not by_inner
            scatter = tally.scatter - falls
            self.sigma[:-1] = spreads(tally.sizes, scatter, self.floor, self.sigma[:-1])
        else:
            table[given_up], self.sigma[given_up] = table[-1], self.sigma[-1]
        self.freeze(table, by_inner, self._try(table, trial))
        return given_up

    def _try(self, table: Tensor, trial: Tensor) -> int:
        """Put `trial` on trial beside the centre nearest to it; which that is.

        It starts with half that one's sigma: it is to take the samples that are close to it.
        """
        kin = int(self.distances(trial[None], table[:-1]).argmin())
        for share in self.shares:
            own = share.columns
            table[-1, own] = share.alike(trial[own], table[kin, own].to(trial))
        self.sigma[-1] = self.sigma[kin] / 2
        return kin


def _floor(tally: Tally) -> float:
    return FLOOR * float(tally.squares / tally.sizes.sum())
