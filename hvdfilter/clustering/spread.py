"""The objective of the clusters, and how an epoch lowers it: sizes and scatters in, decisions out.

Drawing N_k of N samples in proportion to their spread, and weighing them so that the mean stays
what it was, a mini-batch gradient of b samples has the variance `(Phi / N)^2 / b` with

    Phi = sum_k sqrt(N_k S_k),   S_k = sum_{i in k} ||g_i - C_k||^2.

(Neyman, "On the two different aspects of the representative method", 1934.) With equal draws from
each of M clusters, as in Faghri, Duvenaud, Fleet, Ba, "A Study of Gradient Variance in Deep
Learning", 2020, arXiv:2007.04532, it is `M sum_k N_k S_k / (N^2 b)`, between that and M times that.

Phi is what is minimised, because it can be: it is concave in the sizes and scatters, so at any
sigma `Phi <= 1/2 sum_i (sigma_k + ||g_i - C_k||^2 / sigma_k)`, with equality where
`sigma_k^2 = S_k / N_k`; to give each sample the cluster with its smallest term can't raise Phi. A
rule that multiplies distances by the last epoch's sizes, N_k ||g_i - C_k||^2, has no such bound: it
empties the large clusters and fills the small ones by turns.

Everything here is float64, a few numbers a cluster, the same on all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Squared distances below this share of the mean squared gradient are rounding errors of float32.
FLOOR = 1e-6


def costs(distances: Tensor, sigma: Tensor, floor: float) -> Tensor:
    """What a sample adds to twice the bound on Phi in each cluster, [B, k]."""
    return (distances + floor) / sigma + sigma


def objective(sizes: Tensor, scatter: Tensor, floor: float) -> float:
    """Phi, with `floor` added to every squared distance."""
    return float((sizes * (scatter + floor * sizes)).clamp(min=0).sqrt().sum())


def spreads(sizes: Tensor, scatter: Tensor, floor: float, old: Tensor) -> Tensor:
    """sigma [k] at which the bound is tight; the old one for a cluster without samples."""
    fresh = (scatter.clamp(min=0) / sizes.clamp(min=1) + floor).sqrt()
    return torch.where((sizes > 0) & (fresh > 0), fresh, old)


def shares(sizes: Tensor, scatter: Tensor) -> Tensor:
    """Which part of the draws to take from each cluster: half by size, half by spread."""
    spread = (sizes * scatter.clamp(min=0)).sqrt()
    by_size = sizes / sizes.sum()
    return (by_size + (spread / spread.sum() if spread.sum() > 0 else by_size)) / 2


@dataclass(frozen=True)
class Tally:
    """What an epoch's samples add up to, over all ranks; M clusters and one more centre on trial.

    sizes, scatter: N_k and S_k. after: by how much the costs of a cluster's samples would rise if
    it were gone and the centre on trial in its place. gain: by how much they would fall if the one
    on trial came on top. cost, squares: sums over all samples of their cost and of ||g_i||^2.
    """

    sizes: Tensor
    scatter: Tensor
    after: Tensor
    gain: Tensor
    cost: Tensor
    squares: Tensor

    @staticmethod
    def width(number: int) -> int:
        """Numbers of a tally of `number` clusters."""
        return 4 * number + 2

    @staticmethod
    def unpack(numbers: Tensor, number: int) -> Tally:
        """From one vector, in the order of the fields."""
        return Tally(*numbers.split([number] * 4 + [1, 1]))

    @staticmethod
    def opening(squares: Tensor, number: int) -> Tensor:
        """The vector of one batch before there are centres: all in cluster 0, around zero."""
        vector = squares.new_zeros(Tally.width(number))
        total = squares.sum()
        vector[0], vector[number], vector[-1] = len(squares), total, total
        return vector

    @staticmethod
    def of(squares: Tensor, distances: Tensor, terms: Tensor, cluster: Tensor) -> Tensor:
        """The vector of one batch: squares [B], distances and costs [B, M + 1], cluster [B]."""
        number = distances.shape[1] - 1
        best = terms.gather(1, cluster[:, None]).squeeze(1)
        others = terms.scatter(1, cluster[:, None], torch.inf).amin(dim=1)
        columns = torch.stack(
            (
                torch.ones_like(squares),
                distances.gather(1, cluster[:, None]).squeeze(1),
                others - best,
                (best - terms[:, number]).clamp(min=0),
            )
        )
        sums = columns.new_zeros(4, number).index_add_(1, cluster, columns)
        return torch.cat((sums.flatten(), best.sum()[None], squares.sum()[None]))

    def exchange(self, falls: Tensor, floor: float) -> int:
        """The cluster to give up for the centre on trial; -1 where moving the centres is better.

        falls: by how much that would lower each scatter. Both lead to a bound on the next Phi, and
        the lower one is taken. An empty cluster costs nothing to give up.
        """
        net = self.after - (self.gain.sum() - self.gain)
        given_up = int(net.argmin())
        exchanged = float(self.cost + net[given_up]) / 2
        return given_up if exchanged < objective(self.sizes, self.scatter - falls, floor) else -1
