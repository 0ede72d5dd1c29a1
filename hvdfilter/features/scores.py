"""The scores of policy `feature-filter`: one pass over all samples, then each score by its file.

Values end with the ranks that own the samples. Which samples are kept is the policy's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.agreement import Call, Collective
from hvdfilter.agreement.route import owned_keys
from hvdfilter.errors import InputError
from hvdfilter.features.collect import Collector
from hvdfilter.features.density import neighbour_distance
from hvdfilter.features.head import Head
from hvdfilter.features.reconstruction import reconstruction_error
from hvdfilter.features.standard import standardise
from hvdfilter.filter import Filter
from hvdfilter.filter.rescoring import ForwardStep, rescore
from hvdfilter.policies import Policy
from hvdfilter.policies.feature_filter import FeatureFilter, column_of
from hvdfilter.policies.wrapping import innermost


def feature_scores(
    filt: Filter,
    model: torch.nn.Module,
    batches: Iterable[Any],
    step: ForwardStep | None = None,
) -> NDArray[np.float32]:
    """Collective. Score every sample for policy `feature-filter`, which chooses by it.

    To be called once, at the end of the policy's opening, with the model as it then is; it runs in
    eval mode and without gradients, and each part of it is put back into its mode. Returns the
    scores of the samples that this rank owns, float32; the filter holds them from then on, and
    `state_dict` saves them.

    batches: (ids, x, y); over all ranks each sample once, as
    `hf.ShardSampler(hf.KeepMask.full(n), rank, size, shuffle=False, pad=False)` draws them. step:
    for other forms, a function of a batch that runs `model` and returns (ids, logits, labels);
    logits [B, C], labels int [B].

    Raises `InputError` on every rank: for another policy, one that has a score file, or one that
    has chosen already; a model that does not end in a linear layer; samples missing or given twice;
    rows that cannot be scored.
    """
    collective = filt.world.collective
    with collective.opening(Call.FEATURE_SCORES):
        policy = waiting(filt.policy)
        if policy is None:
            raise InputError(
                f"feature_scores is for policy 'feature-filter' without a score file, not for "
                f"{innermost(filt.policy)!r}"
            )
        if filt.epoch >= policy.opening:
            raise InputError(
                f"feature_scores comes too late: policy 'feature-filter' has chosen in epoch "
                f"{policy.opening}"
            )
    with filt.costs.measure("features", collective):
        with Head(model) as head:
            seen = Collector(head, filt.num_samples, policy.score != "gradient")
            error = rescore(model, batches, step, seen, filt.world.device)
        collective.share_error(error)
        name = column_of(policy.score)
        columns = score_columns(seen, [policy.score], filt.num_samples, filt.seed, collective)
        filt.book.put(name, columns[name])
    return columns[name]


def waiting(policy: Policy) -> FeatureFilter | None:
    """The policy `feature-filter` inside, where it is one that is to be told its scores."""
    inner = innermost(policy)
    return inner if isinstance(inner, FeatureFilter) and not inner.scores else None


def due(filt: Filter) -> bool:
    """Whether the opening has just ended, and an epoch is left that the choice is for."""
    policy = waiting(filt.policy)
    return policy is not None and filt.epoch + 1 == policy.opening < filt.epochs


def score_columns(
    seen: Collector, scores: Iterable[str], num_samples: int, seed: int, collective: Collective
) -> dict[str, NDArray[np.float32]]:
    """Collective. The `scores` of this rank's block of ids, by their names in score files.

    seen: of all ranks together, each sample once. The same on any number of ranks, up to rounding.
    """
    ids, found = seen.ids, {}
    values = {"gradient": seen.gradient}
    wanted = list(scores)
    if set(wanted) - {"gradient"}:
        features = standardise(seen.features(), collective)
        if "reconstruction" in wanted:
            values["reconstruction"] = reconstruction_error(features, collective)
        if "density" in wanted:
            values["density"] = neighbour_distance(features, ids, seed, collective)
    for score in wanted:
        found[column_of(score)], error = owned_keys(values[score], ids, num_samples, 0, collective)
        collective.share_error(error)
    return found
