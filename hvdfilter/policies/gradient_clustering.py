"""Gradient clustering: batches draw in turn from clusters of like gradients, so they vary less.

Faghri, Duvenaud, Fleet, Ba, "A Study of Gradient Variance in Deep Learning", 2020,
arXiv:2007.04532. Each of M clusters gives as many draws, and a sample of a cluster of N_k among N
weighs M N_k / N. So the mean over a batch is, in expectation, the mean over the set, and what the
clusters differ by does not add to its variance: a round of M draws has sum_k (N_k / N)^2 var_k,
where M uniform ones have the variance of the whole set over M. A sample of a small cluster is drawn
often at a small weight, one of a cluster of duplicates rarely at a large one.

Different from the public code: the samples of a cluster are drawn equally often within the epoch,
give or take one; the rounds are kept over the batches of all ranks together; and the clusters are
made by the training pass itself.

Samples that no epoch has clustered yet, as after one that ended early, are a cluster of their own;
any clusters, also old ones, give an unbiased batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hvdfilter.agreement.fields import Field, last_own
from hvdfilter.agreement.largest import largest
from hvdfilter.agreement.strata import MOST
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, Policy, View, check_keep
from hvdfilter.policies.registry import register
from hvdfilter.policies.uniform import budget


@register
@dataclass(frozen=True)
class GradientClustering(Policy):
    """Draw from the clusters of per-sample gradients in turn, weighed to be unbiased.

    clusters: how many. keep: draws an epoch, as a fraction of the samples; with 1, as many as there
    are samples. The first epoch trains everything, and its backward makes the first clusters.

    Clusters are those of `hf.GradientClusters(model, clusters)`, given after each backward as
    filt.observe(ids, cluster=...); `hvdfilter train` does so.

    Cost: a backward that is up to 1.5 times as long; one allreduce of the centres, a histogram and
    three small allreduces an epoch; 10 bytes a sample on every rank. Helps where the set holds many
    samples that are alike; where it holds none, clusters explain little of the variance.
    """

    name: ClassVar[str] = "gradient-clustering"
    source: ClassVar[str] = "Faghri et al. 2020, arXiv:2007.04532"
    cost: ClassVar[str] = "clustering in the backward, 1 histogram"
    columns: ClassVar[tuple[Field, ...]] = (last_own("cluster", "<i4", -1),)  # type: ignore[assignment]
    own_scores: ClassVar[Mapping[str, str]] = {"cluster": "hf.GradientClusters(model)"}
    clusters: int = 16
    keep: float = 1.0

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if not 2 <= self.clusters < MOST:
            raise InputError(
                f"policy {self.name!r}: clusters={self.clusters} must be at least 2 and below "
                f"{MOST}"
            )

    def plan(self, view: View) -> Plan:
        """As many draws of each cluster, those of one cluster even among its samples."""
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
        each = max(1, budget(self.keep, view.num_samples) // int(here.sum()))
        whole, rest = np.divmod(each, np.maximum(sizes, 1))
        chance = view.random_keys(view.epoch)
        once_more = largest(chance, rest, stratum, view.total, view.before)
        repeats = whole[stratum] + once_more
        share = sizes * here.sum() / view.num_samples
        kept = repeats > 0
        return Plan(
            np.zeros(kept.size, np.float32),
            0,
            always=kept,
            weight=share.astype(np.float32)[stratum],
            repeats=repeats,
            strata=stratum,
        )
