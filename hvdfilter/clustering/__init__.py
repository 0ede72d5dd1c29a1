"""Gradient clusters: which samples have nearly the same gradient, agreed by all ranks.

Stands on the per-sample gradients that `hvdfilter.scoring` lets pass; draws no sample itself.
"""

from hvdfilter.clustering.clusters import EpochClusters, GradientClusters

__all__ = ["EpochClusters", "GradientClusters"]
