"""Gradient clustering: batches draw in turn from clusters of like gradients, so they vary less.

Faghri, Duvenaud, Fleet, Ba, "A Study of Gradient Variance in Deep Learning", 2020,
arXiv:2007.04532. With draws="equal", as there, each of M clusters gives as many draws, and a sample
of a cluster of N_k among N weighs M N_k / N. The mean over a batch is, in expectation, the mean
over the set, and what the clusters differ by does not add to its variance. A sample of a small
cluster is drawn often at a small weight, one of a large cluster rarely at a large one: as long as
the large one is of samples that are still alike. Clusters are as old as the samples' last batch,
and in training they are not: a sample whose gradient has grown since then, at a weight of ten,
throws the training off.

So by default, with draws="proportional", a cluster gives draws as its size is, each sample is drawn
once, and all weigh 1: only their order is new, a batch holding its share of every cluster. Whatever
the clusters are, this never varies more than uniform draws do.

Different from the public code: the samples of a cluster are drawn equally often within the epoch,
give or take one; the rounds are kept over the batches of all ranks together; and the clusters are
made by the training pass itself.

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

DRAWS = ("proportional", "equal")


@register
@dataclass(frozen=True)
class GradientClustering(Policy):
    """Draw from the clusters of per-sample gradients in turn, weighed to be unbiased.

    clusters: how many. draws: of each cluster, "proportional" to its size, or "equal". keep: draws
    an epoch, as a fraction of the samples; with 1, as many as there are samples. The first two
    epochs train everything: the first makes the centres, the second finds who is near them.

    Clusters are those of `hf.GradientClusters(model, clusters)`, given after each backward as
    filt.observe(ids, cluster=...); `hvdfilter train` does so.

    Cost: a backward that is up to 1.5 times as long; one allreduce of the centres, a histogram and
    three small allreduces an epoch; 10 bytes a sample on every rank. Helps where the set holds many
    samples that are alike; where it holds none, clusters explain little of the variance. On digits
    draws="equal" had 3 to 10 times the variance of uniform draws, and lost 38 points of accuracy in
    the epoch that began it (`hvdfilter train --variance 24`).
    """

    name: ClassVar[str] = "gradient-clustering"
    source: ClassVar[str] = "Faghri et al. 2020, arXiv:2007.04532"
    cost: ClassVar[str] = "clustering in the backward, 1 histogram"
    columns: ClassVar[tuple[Field, ...]] = (last_own("cluster", "<i4", -1),)  # type: ignore[assignment]
    own_scores: ClassVar[Mapping[str, str]] = {"cluster": "hf.GradientClusters(model)"}
    clusters: int = 16
    draws: str = "proportional"
    keep: float = 1.0

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if not 2 <= self.clusters < MOST:
            raise InputError(
                f"policy {self.name!r}: clusters={self.clusters} must be at least 2 and below "
                f"{MOST}"
            )

        if self.draws not in DRAWS:
            raise InputError(
                f"policy {self.name!r}: draws={self.draws!r} must be {' or '.join(DRAWS)}"
            )

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
        each = self._draws(sizes, budget(self.keep, view.num_samples))
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

    def _draws(self, sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
        """How many draws each cluster gives, of `total` in all or nearly; at least 1."""
        here = sizes > 0
        if self.draws == "equal":
            return np.where(here, max(1, total // int(here.sum())), 0)
        return np.where(here, np.maximum(1, sizes * total // int(sizes.sum())), 0)
