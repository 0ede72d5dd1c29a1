"""Losses whose rule spans the batches of all ranks."""

from hvdfilter.losses.negatives import hard_negative

__all__ = ["hard_negative"]
