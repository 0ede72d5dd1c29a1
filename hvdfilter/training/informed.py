"""Informed: which samples of an epoch are worth a perturbation, picked by their stored scores.

Once an epoch, by the same exact selection over all ranks as the keep-mask, among the samples that
this keeps: every rank knows the pick, and it is the same on any number of ranks. It shapes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hvdfilter.agreement import KeepMask, merge, random
from hvdfilter.agreement.largest import largest
from hvdfilter.filter import Filter
from hvdfilter.policies import Plan, View
from hvdfilter.policies.base import share_of
from hvdfilter.policies.wrapping import Wrapping

_STREAM = 0x1F0  # of the order among equal scores, apart from the streams of policies


@dataclass(frozen=True)
class Noting(Wrapping):
    """A policy that also has `also`, a column of the score book, noted; it plans as before."""

    also: str

    @property
    def columns(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Those of the policy inside, and the one."""
        names = [getattr(column, "name", column) for column in self.inner.columns]
        return self.inner.columns + ((self.also,) if self.also not in names else ())

    def plan(self, view: View) -> Plan:
        """That of the policy inside."""
        return self.inner.plan(view)


def pick(filt: Filter, by: str, share: float) -> KeepMask:
    """Collective. The share of the epoch's kept samples with the highest losses or least margins.

    A sample without a score comes before all others, equal ones are taken by chance.
    """
    book, collective = filt.book, filt.world.collective
    ids = np.arange(book.start, book.start + book.length)
    key = book.column("loss") if by == "loss" else -book.column("margin")
    group = np.where(filt.mask.contains(ids), 0, 1)
    count = np.array([share_of(share, filt.mask.count), 0], np.int64)
    ties = random.uniform_keys(filt.seed, filt.epoch, ids, _STREAM)
    picked = largest(key, count, group, collective.allreduce, collective.exscan, ties)
    return merge(picked, book.blocks, collective)
