"""Samples in the order in which they are worth a look: what lists, tables and galleries begin with.

Each takes ascending ids and gives some of them, ordered; ties go by id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hvdfilter.inspection.mislabelled import likely_mislabelled
from hvdfilter.inspection.samples import Samples

Ids = NDArray[np.int64]


def hardest(samples: Samples, ids: Ids) -> Ids:
    """All whose loss was noted, the largest first."""
    loss = samples.column("loss")[ids]
    ids = ids[np.isfinite(loss)]
    return ids[np.argsort(-loss[np.isfinite(loss)], kind="stable")]


def most_hidden(samples: Samples, ids: Ids) -> Ids:
    """All that were ever hidden, the most often first; of those hidden as often the lowest loss."""
    times = samples.column("hidden_epochs")[ids].astype(np.int64)
    ids, times = ids[times > 0], times[times > 0]
    loss = samples.columns.get("loss")
    return ids[np.lexsort((ids, ids if loss is None else loss[ids], -times))]


def suspected(samples: Samples, ids: Ids) -> Ids:
    """All whose mean margin is below zero, by `likely_mislabelled`."""
    ranked = likely_mislabelled(samples, ids)
    return ranked[samples.column("margin_mean")[ranked] < 0]
