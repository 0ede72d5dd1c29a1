"""Summary: samples told in a page: quantiles of each score, the extreme samples, class by class.

Plain values, which JSON can hold and tables can show. It draws nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.inspection.mislabelled import RULE
from hvdfilter.inspection.ranked import hardest, most_hidden, suspected
from hvdfilter.inspection.samples import Samples

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SCORES = ("loss", "grad_norm", "confidence", "margin", "margin_mean")
# What is told of one sample, where it is known.
_TOLD = (*SCORES, "hidden_epochs", "observations")

Sample = dict[str, Any]


def summarise(samples: Samples, top: int = 10) -> dict[str, Any]:
    """All that is worth telling. top: most samples of a list, over all and for each class.

    Raises `InputError` where not even the loss was noted.
    """
    everyone = np.arange(samples.num_samples)
    found: dict[str, Any] = {
        "source": str(samples.source),
        "samples": samples.num_samples,
        "epochs": samples.epochs,
        "noted_since": samples.noted_since,
        "quantile_levels": list(QUANTILES),
        "quantiles": _quantiles(samples, everyone),
        **_lists(samples, everyone, top),
    }
    if "margin_mean" in samples.columns:
        found["rule"] = RULE
    by_class = np.argsort(samples.labels, kind="stable")
    labels, starts = np.unique(samples.labels[by_class], return_index=True)
    members = np.split(by_class, starts[1:])
    found["classes"] = [
        {"class": label, **_of_class(samples, ids, top)}
        for label, ids in zip(labels.tolist(), members, strict=True)
        if label >= 0
    ]
    return found


def _of_class(samples: Samples, ids: NDArray[np.int64], top: int) -> dict[str, Any]:
    return {
        "samples": len(ids),
        "quantiles": _quantiles(samples, ids),
        **_lists(samples, ids, top),
    }


def _quantiles(samples: Samples, ids: NDArray[np.int64]) -> dict[str, list[float] | None]:
    """By score, of the samples that were observed; None where none was."""
    found: dict[str, list[float] | None] = {}
    for name in SCORES:
        if name in samples.columns:
            values = samples.columns[name][ids]
            seen = np.isfinite(values)
            if name != "margin_mean" and "age" in samples.columns:
                seen &= samples.columns["age"][ids] >= 0
            values = values[seen].astype(np.float64)
            found[name] = np.quantile(values, QUANTILES).tolist() if values.size else None
    return found


def _lists(samples: Samples, ids: NDArray[np.int64], top: int) -> dict[str, Any]:
    """The extreme ones among `ids`."""
    lists: dict[str, Any] = {"hardest": _told(samples, hardest(samples, ids)[:top])}
    if "hidden_epochs" in samples.columns:
        times = samples.columns["hidden_epochs"][ids].astype(np.int64)
        lists["most_hidden"] = _told(samples, most_hidden(samples, ids)[:top])
        lists["never_hidden"] = int(np.count_nonzero(times == 0))
        if samples.noted_epochs > 0:
            lists["hidden_share"] = float(times.mean() / samples.noted_epochs)
    if "margin_mean" in samples.columns:
        below = suspected(samples, ids)
        noted = np.isfinite(samples.columns["margin_mean"][ids]).any()
        lists["likely_mislabelled"] = _told(samples, below[:top])
        lists["margin_mean_below_0"] = len(below) if noted else None
    return lists


def _told(samples: Samples, ids: NDArray[np.int64]) -> list[Sample]:
    names = [name for name in _TOLD if name in samples.columns]
    labelled = bool((samples.labels[ids] >= 0).any())
    return [
        {"id": int(at)}
        | ({"label": int(samples.labels[at])} if labelled else {})
        | {name: _plain(samples.columns[name][at]) for name in names}
        for at in ids
    ]


def _plain(value: Any) -> float | int | None:
    """A number that JSON can hold: None for one that was never observed."""
    if isinstance(value, np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value)
