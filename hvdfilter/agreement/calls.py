"""Which public collective a rank has called, as one message that the ranks hold against each other.

A message is three int64 whose element-wise maximum over the ranks tells whether all of them made
the same call, and if not names two different ones with a rank each. Nothing here communicates.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError, WorldError


class Call(IntEnum):
    """The calls that must be made on all ranks, in one and the same order.

    A training step is the lowest, so that the maximum of the complements tells whether any rank is
    in one. Where two calls meet, the remedy is that of the higher: the rarer, and likelier wrong.
    """

    STEP = 0
    BEGIN_EPOCH = 1
    END_EPOCH = 2
    SETTLE = 3
    RESCORE = 4
    AGREE = 5
    FILTER = 6
    LOAD_STATE_DICT = 7
    MEAN = 8
    QUANTILES = 9
    RECORD = 10
    RECORD_EPOCH = 11
    STATE_DICT = 12
    HARD_NEGATIVE = 13
    HARD_NEGATIVE_BACKWARD = 14
    CLUSTERS = 15
    CLUSTERS_END_EPOCH = 16
    CLUSTERS_STATE_DICT = 17
    CLUSTERS_LOAD = 18
    FEATURE_SCORES = 19

    @property
    def label(self) -> str:
        """As a user writes it."""
        return "a training step" if self is Call.STEP else _LABELS.get(self, self.name.lower())

    @property
    def remedy(self) -> str:
        """What to do where it was not called on all ranks."""
        return _REMEDIES.get(self) or f"{self.label} is collective: call it on all ranks alike"


_LABELS = {
    Call.FILTER: "Filter",
    Call.RECORD: "Record",
    Call.RECORD_EPOCH: "Record.epoch",
    Call.HARD_NEGATIVE_BACKWARD: "the backward of hard_negative",
    Call.CLUSTERS: "GradientClusters",
    Call.CLUSTERS_END_EPOCH: "GradientClusters.end_epoch",
    Call.CLUSTERS_STATE_DICT: "GradientClusters.state_dict",
    Call.CLUSTERS_LOAD: "GradientClusters.load_state_dict",
}
_REMEDIES = {
    Call.STEP: "take the same steps on all ranks",
    Call.BEGIN_EPOCH: "take the same epochs and steps on all ranks, and leave a loop early on all "
    "of them after the same step, as filt.request_stop() and filt.stopping allow",
    Call.RESCORE: "rescore is collective: call it on all ranks, also where a rank has nothing to "
    "re-score",
    Call.FILTER: "Filter is collective: make the same filters, in one order, on all ranks",
    Call.LOAD_STATE_DICT: "load_state_dict is collective: call it on all ranks (what rank 0 holds "
    "counts)",
    Call.RECORD: "Record is collective: make it on all ranks, rank 0 alone writes the folder",
    Call.STATE_DICT: "state_dict is collective: call it on all ranks, save on rank 0",
    Call.HARD_NEGATIVE: "hard_negative is collective: take the same steps on all ranks, or where "
    "they may differ, as in re-scoring, pass negatives='local'",
    Call.HARD_NEGATIVE_BACKWARD: "the gradient of hard_negative comes from all ranks: call "
    "backward on all of them or on none",
}


class Message(NamedTuple):
    """One rank's call. filter: number of the `Filter`, 0 for none. argument: of begin_epoch."""

    call: Call
    filter: int
    argument: int
    rank: int

    def words(self, numbered: bool = False) -> str:
        """As a user would write it; numbered: with the number of the filter."""
        text = self.call.label
        if self.call is Call.BEGIN_EPOCH:
            text += f"({self.argument})"
        elif self.call is not Call.STEP:
            text += "()"
        return f"{text} of filter {self.filter}" if numbered else text


# Bits of a message's parts, from the top: 62 in all, so that neither it nor its complement is
# negative. Filters are numbered in a circle, and epochs above 4 million are not told apart.
_FILTER, _ARGUMENT, _RANK = 10, 22, 24
_WORD = 6 + _FILTER + _ARGUMENT
_TOP_RANK, _TOP_WORD = (1 << _RANK) - 1, (1 << _WORD) - 1


def encode(message: Message, flag: int) -> NDArray[np.int64]:
    """int64 [3]: the call, its complement (both with the rank, lower ones first), and the flag."""
    return np.array((*_encode(message), flag), np.int64)


@lru_cache(maxsize=64)  # a training step sends the same one every time
def _encode(message: Message) -> tuple[int, int]:
    argument = min(max(message.argument, 0), (1 << _ARGUMENT) - 1)
    word = (
        (int(message.call) << _FILTER) + message.filter % (1 << _FILTER) << _ARGUMENT
    ) + argument
    rank = _TOP_RANK - min(message.rank, _TOP_RANK)
    return word << _RANK | rank, (_TOP_WORD - word) << _RANK | rank


def compare(highest: NDArray[np.int64]) -> Exception | None:
    """The error in calls whose encodings have this maximum; None where all ranks made the same.

    It is marked as every rank's own (`on_all_ranks`) unless a rank is in a training step: that one
    goes on to an allreduce of gradients, and learns of it at its next step at the earliest.
    """
    one, other, _ = highest.tolist()
    if (one >> _RANK) + (other >> _RANK) == _TOP_WORD:
        return None
    first, second = sorted((_decode(one), _decode(_flipped(other))), key=lambda m: m.rank)
    rarer = max(first.call, second.call)
    kind: type[Exception] = WorldError
    remedy = rarer.remedy
    if first.call is second.call:
        kind = InputError
        remedy = "give all ranks the same epoch"
    numbered = bool(first.filter and second.filter and first.filter != second.filter)
    if numbered:
        remedy = "use several filters in one order on all ranks"
    done = [
        f"rank {m.rank} {'is in' if m.call is Call.STEP else 'called'} {m.words(numbered)}"
        for m in (first, second)
    ]
    error = kind(f"{done[0]} while {done[1]}: {remedy}")
    error.on_all_ranks = Call.STEP not in (first.call, second.call)  # type: ignore[attr-defined]
    return error


def _flipped(value: int) -> int:
    """The encoding of which this is the complement; the rank is the same in both."""
    return (_TOP_WORD - (value >> _RANK)) << _RANK | value & _TOP_RANK


def _decode(value: int) -> Message:
    word = value >> _RANK
    return Message(
        Call(word >> _FILTER + _ARGUMENT),
        word >> _ARGUMENT & (1 << _FILTER) - 1,
        word & (1 << _ARGUMENT) - 1,
        _TOP_RANK - (value & _TOP_RANK),
    )
