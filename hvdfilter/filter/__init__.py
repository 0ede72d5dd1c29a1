"""Filter: what a training loop holds to have its samples scored, agreed on and filtered."""

from hvdfilter.filter.filter import Filter

__all__ = ["Filter"]
