"""Collector: what one forward-only pass sees of this rank's samples, held on the host.

It takes the place of a Filter's observer in `rescore`, which runs the model. It never communicates,
and trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter import scoring
from hvdfilter.errors import InputError
from hvdfilter.features.head import Head
from hvdfilter.filter.ids import check_ids, check_range, name_ids


class Collector:
    """Gradient norms of the last linear layer and, if asked for, its input, sample by sample.

    head: of the model that runs, entered. num_samples: of the whole set. features: hold the
    features too, 4 d bytes a sample.
    """

    def __init__(self, head: Head, num_samples: int, features: bool) -> None:
        self._head, self._num_samples, self._keep = head, num_samples, features
        self._ids: list[Tensor] = []
        self._gradient: list[Tensor] = []
        self._features: list[Tensor] = []

    def score(self, logits: Tensor, labels: Tensor, ids: Any) -> scoring.Scores:
        """Take in a batch: logits [B, C], labels int [B], ids int [B]; its scores.

        Raises `InputError`, naming the ids, for rows that cannot be scored, and for a model that
        does not end in a linear layer.
        """
        ids = check_ids(ids, labels.shape[0], self._num_samples)
        if ids.is_cuda:
            check_range(ids, self._num_samples)
        seen = self._head.take(logits)
        try:
            scores = scoring.score(logits, labels)
            scoring.check(scores)
        except InputError as refused:
            raise name_ids(refused, ids) from None
        self._ids.append(ids.cpu().to(torch.int64))
        self._gradient.append(seen.gradient_norm(scores.grad_norm).float().cpu())
        if self._keep:
            # A copy: the layer may have been given a view of something larger.
            self._features.append(seen.features.float().cpu().clone())
        return scores

    def take(self, losses: Tensor, ids: Any, scores: Mapping[str, Any]) -> None:
        """Refused: a loss alone does not tell the gradient of a layer."""
        raise InputError(
            "feature_scores: step must return (ids, logits, labels), for losses do not tell what a "
            "sample adds to the features"
        )

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64 [n], as they came."""
        return torch.cat([torch.empty(0, dtype=torch.int64), *self._ids]).numpy()

    @property
    def gradient(self) -> NDArray[np.float32]:
        """float32 [n]."""
        return torch.cat([torch.empty(0), *self._gradient]).numpy()

    def features(self) -> Tensor:
        """float32 [n, d], handed over and not held here any longer; [0, 0] without samples."""
        parts, self._features = self._features, []
        return torch.cat(parts) if parts else torch.empty(0, 0)
