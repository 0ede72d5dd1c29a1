"""What a sample adds to the features: the scores of policy `feature-filter`, one file each."""

from hvdfilter.features.scores import feature_scores

__all__ = ["feature_scores"]
