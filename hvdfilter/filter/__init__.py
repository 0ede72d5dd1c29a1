"""Filter: what a training loop holds to have its samples scored, agreed on and filtered.

`filter.py` puts an epoch in order; every other file is one part of it, which knows nothing of
`Filter` and little of the others. Nothing here trains.
"""

from hvdfilter.filter.filter import Filter

__all__ = ["Filter"]
