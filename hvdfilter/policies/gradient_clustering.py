"""Gradient clustering: batches draw in turn from clusters of like gradients, so they vary less.

Faghri, Duvenaud, Fleet, Ba, "A Study of Gradient Variance in Deep Learning", 2020,
arXiv:2007.04532. A cluster k of N_k samples among N gives a share q_k of the draws, and its samples
weigh N_k / (N q_k): the mean over a batch is, in expectation, the mean over the set, and what the
clusters differ by does not add to its variance. There, q_k = 1 / M for M clusters (draws="equal").

In training, clusters are as old as each sample's last batch. A sample of the one large cluster, of
small gradients, whose own has grown meanwhile then weighs up to M times what it should, and throws
the training off. So by default, draws="shares", half of the draws are by size, N_k / N, and half by
spread, sqrt(N_k S_k) with S_k the sum of squared distances to the centre, which would vary least
with clusters as they are now (Neyman 1934): no weight is above 2 (and the share that rounding adds,
2 M / draws), and no variance above twice that of uniform draws. draws="proportional" is by size
alone: each sample once, all weigh 1, and only the order is new, which never varies more than
uniform draws do, and seldom much less.

Different from the public code: the samples of a cluster are drawn equally often within the epoch,
give or take one; the rounds are kept over the batches of all ranks together; and the clusters are
made by the training pass itself (docs/gradient-clustering.md).

Samples that no epoch has clustered yet, as after one that ended early, are a cluster of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field, last_own
from hvdfilter.agreement.largest import largest
from hvdfilter.agreement.strata import MOST
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, Policy, View, check_keep
from hvdfilter.policies.registry import register
from hvdfilter.policies.uniform import budget

DRAWS = ("shares", "proportional", "equal")


@register
@dataclass(frozen=True)
class GradientClustering(Policy):
    """Draw from the clusters of per-sample gradients in turn, weighed to be unbiased.

    clusters: how many. draws: of each cluster, half by size and half by spread ("shares"),
    "proportional" to its size, or "equal". keep: draws an epoch, as a fraction of the samples; with
    1, as many as there are samples. The first two
    epochs train everything: the first makes the centres, the second finds who is near them.

    Clusters are those of `hf.GradientClusters(model, clusters)`, given after each backward as
    filt.observe(ids, cluster=..., distance=clusters.distances), the latter for draws="shares";
    `hvdfilter train` does so.

    Cost: a backward that is up to 1.5 times as long; one allreduce of the centres, a histogram and
    three small allreduces an epoch; 10 bytes a sample on every rank. Helps where the set holds many
    samples that are alike; where it holds none, clusters explain little of the variance. On digits
    (`hvdfilter train --variance 24`, one run) "shares" had 0.2 to 0.6 of the variance of uniform
    draws from the fifth epoch on, "proportional" 0.6 to 1.6; "equal" 2 to 10 times as much, and it
    lost 56 points of accuracy in the epoch that began it.
    """

    name: ClassVar[str] = "gradient-clustering"
    source: ClassVar[str] = "Faghri et al. 2020, arXiv:2007.04532"
    cost: ClassVar[str] = "clustering in the backward, 1 histogram"
    clusters: int = 16
    draws: str = "shares"
    keep: float = 1.0

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if not 2 <= self.clusters < MOST:
            raise InputError(
                f"policy {self.name!r}: clusters={self.clusters} must be at least 2 and below "
                f"{MOST}"
            )

        if self.draws not in DRAWS:
            known = ", ".join(DRAWS)
            raise InputError(f"policy {self.name!r}: draws={self.draws!r} must be one of {known}")

    @property
    def columns(self) -> tuple[Field, ...]:  # type: ignore[override]
        """The last cluster, and where the draws are by spread the last squared distance."""
        fields = last_own("cluster", "<i4", -1), last_own("distance", "<f4", np.inf)
        return fields if self.draws == "shares" else fields[:1]

    @property
    def own_scores(self) -> Mapping[str, str]:  # type: ignore[override]
        """What makes them."""
        return {field.name: "hf.GradientClusters(model)" for field in self.columns}

    def plan(self, view: View) -> Plan:
        """Draws of each cluster, even among its samples."""
        cluster = view.column("cluster")
        foreign = (cluster >= self.clusters) | (cluster < -1)
        stratum = np.where(cluster < 0, self.clusters, cluster)
        stratum[foreign] = self.clusters + 1
        sizes = view.total(np.bincount(stratum, minlength=self.clusters + 2).astype(np.int64))
        if foreign.any():
            first = int(np.flatnonzero(foreign)[0])
            raise InputError(
                f"policy {self.name!r}: sample {view.start + first} is in cluster "
                f"{int(cluster[first])}, of {self.clusters}: give hf.GradientClusters as many"
            )
        here = sizes > 0
        if sizes[-1] or np.count_nonzero(here) < 2:  # another rank has refused; or all are alike
            return view.everything()
        by_spread = self._spreads(view, stratum, sizes) if self.draws == "shares" else None
        each = self._draws(sizes, budget(self.keep, view.num_samples), by_spread)
        whole, rest = np.divmod(each, np.maximum(sizes, 1))
        chance = view.random_keys(view.epoch)
        once_more = largest(chance, rest, stratum, view.total, view.before)
        repeats = whole[stratum] + once_more
        weight = sizes * each.sum() / (view.num_samples * np.maximum(each, 1))
        kept = repeats > 0
        return Plan(
            np.zeros(kept.size, np.float32),
            0,
            always=kept,
            weight=weight.astype(np.float32)[stratum],
            repeats=repeats,
            strata=stratum,
        )

    def _spreads(
        self, view: View, stratum: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Collective. sqrt(N_k S_k) of each cluster, up to a factor; the same on all ranks."""
        distance = view.column("distance")
        known = np.isfinite(distance)
        largest = float(view.quantiles("distance", (1.0,))[0])
        scale = (1 << min(24, 62 - view.num_samples.bit_length())) / largest if largest > 0 else 0.0
        whole = np.rint(np.where(known, distance, 0).astype(np.float64) * scale).astype(np.int64)
        sums = np.zeros((2, sizes.size), np.int64)
        np.add.at(sums[0], stratum, whole)
        np.add.at(sums[1], stratum, known)
        scatter, seen = view.total(sums.reshape(-1)).reshape(2, -1)
        # Samples never observed are as spread as the others of all clusters.
        mean = scatter.sum() / max(1, seen.sum())
        squared = np.where(seen > 0, scatter / np.maximum(seen, 1), mean)
        return sizes.astype(np.float64) * np.sqrt(squared)

    def _draws(
        self, sizes: NDArray[np.int64], total: int, by_spread: NDArray[np.float64] | None
    ) -> NDArray[np.int64]:
        """How many draws each cluster gives, of `total` in all or nearly; at least 1."""
        here = sizes > 0
        if self.draws == "equal":
            return np.where(here, max(1, total // int(here.sum())), 0)
        each = sizes * total // int(sizes.sum())
        if by_spread is not None and by_spread.sum() > 0:
            share = (sizes / sizes.sum() + by_spread / by_spread.sum()) / 2
            # Rounding must not take from a cluster the half that bounds its samples' weight.
            least = -(-sizes * total // (2 * int(sizes.sum())))
            each = np.maximum(np.floor(total * share).astype(np.int64), least)
        return np.where(here, np.maximum(1, each), 0)
