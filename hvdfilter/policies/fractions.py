"""Options that are shares, and the stretch of full training at a run's end.

Shared by the policies; it looks at no sample.
"""

from __future__ import annotations

from hvdfilter.errors import InputError
from hvdfilter.policies.base import share_of


def check_fraction(
    policy: str, option: str, value: float, *, zero: bool = True, one: bool = True
) -> None:
    """Refuse a share outside [0, 1]; without `zero` or `one`, that end too."""
    inside = (value >= 0 if zero else value > 0) and (value <= 1 if one else value < 1)
    if not inside:
        span = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise InputError(f"policy {policy!r}: {option}={value} must be a fraction in {span}")


def anneals(epoch: int, epochs: int, delta: float) -> bool:
    """Whether `epoch`, counted from 0, lies in the last 1 - delta of `epochs`.

    From epoch floor(delta * epochs) on, so at least that share whatever the number of epochs:
    26 of 30, 78 of 90, 87 of 100 for delta = 0.875.
    """
    return epoch >= share_of(delta, epochs)
