"""Features on one scale: mean 0 and variance 1 of each, over the samples of all ranks.

Otherwise the features with the largest numbers alone would decide distances and errors.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hvdfilter.agreement import Collective

# Rows that are taken to float64 at once: memory is bounded whatever the number of samples.
ROWS = 4096
# A spread below this share of the mean is float32's own rounding: the feature is constant.
CONSTANT = 1e-6


def chunks(features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The rows [n, d] by parts: where each stands, and its values in float64."""
    for start in range(0, len(features), ROWS):
        part = slice(start, start + ROWS)
        yield part, features[part].double()


def standardise(features: Tensor, collective: Collective) -> Tensor:
    """Collective. `features` float32 [n, d] of this rank, scaled in place, and returned.

    A constant feature becomes 0. A rank without samples, which does not know d, gets [0, d].
    """
    width = int(collective.allreduce(np.array([features.shape[1]], np.int64), "max")[0])
    if not len(features):
        features = features.new_empty(0, width)
    sums = torch.zeros(width + 1, dtype=torch.float64)
    for _, rows in chunks(features):
        sums[:-1] += rows.sum(0)
        sums[-1] += len(rows)
    sums = torch.from_numpy(collective.allreduce(sums.numpy(), "sum"))
    mean, count = sums[:-1] / sums[-1], sums[-1]
    squares = torch.zeros(width, dtype=torch.float64)
    for _, rows in chunks(features):
        squares += (rows - mean).square().sum(0)
    squares = torch.from_numpy(collective.allreduce(squares.numpy(), "sum"))
    spread = (squares / count).sqrt()
    constant = spread <= CONSTANT * mean.abs()
    scale = torch.where(constant, 0.0, 1 / torch.where(constant, 1.0, spread))
    for part, rows in chunks(features):
        features[part] = ((rows - mean) * scale).float()
    return features
