"""The fields that a score book keeps for people: what a report and `inspect` show of a sample.

No policy reads them. Loss, confidence and margin are observed; the others are made of the margin
and the mask where the sample is owned, and so never travel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Columns, Field


def _trained(columns: Columns, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # A hidden sample may have been observed too, by looking at it again.
    return kept & (columns["age"] == 0) & np.isfinite(columns["margin"])


def _margin_mean(columns: Columns, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    mean, times = columns["margin_mean"], columns["trained_epochs"].astype(np.float32)
    before = np.where(times > 0, mean, np.float32(0))
    moved = before + (columns["margin"] - before) / (times + 1)
    return np.where(_trained(columns, kept), moved, mean)


def _trained_epochs(columns: Columns, kept: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return _counted(columns["trained_epochs"], _trained(columns, kept))


def _hidden_epochs(columns: Columns, kept: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return _counted(columns["hidden_epochs"], ~kept)


def _counted(times: NDArray[np.uint16], these: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return times + (these & (times < np.iinfo(times.dtype).max))


def _since_trained(columns: Columns, kept: NDArray[np.bool_]) -> NDArray[np.int16]:
    since = columns["since_trained"]
    older = since + ((since >= 0) & (since < np.iinfo(since.dtype).max))
    return np.where(kept, np.int16(0), older)


#: hidden_epochs: how many epochs' masks hid the sample. since_trained: epochs since a mask kept it,
#: 0 for the last epoch, -1 for never. trained_epochs: epochs that kept it and observed its margin;
#: margin_mean: its mean over these, +inf before the first. Counts stop at what their type holds.
HISTORY: tuple[str | Field, ...] = (
    *("loss", "confidence", "margin", "observations"),
    Field("hidden_epochs", "<u2", 0, (), None, epoch=_hidden_epochs),
    Field("since_trained", "<i2", -1, (), None, epoch=_since_trained),
    Field("trained_epochs", "<u2", 0, (), None, ("margin",), epoch=_trained_epochs),
    Field("margin_mean", "<f4", np.inf, (), None, ("trained_epochs",), epoch=_margin_mean),
)
#: The sample's class, put there once; -1 where it has none.
LABEL = Field("label", "<i4", -1, (), None)
