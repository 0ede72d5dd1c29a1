"""Annealing: the stretch of full training at a run's end, the same rule for every policy."""

from __future__ import annotations

from hvdfilter.policies.base import share_of


def anneals(epoch: int, epochs: int, delta: float) -> bool:
    """Whether `epoch`, counted from 0, lies in the last 1 - delta of `epochs`.

    From epoch floor(delta * epochs) on, so at least that share whatever the number of epochs:
    26 of 30, 78 of 90, 87 of 100 for delta = 0.875.
    """
    return epoch >= share_of(delta, epochs)
