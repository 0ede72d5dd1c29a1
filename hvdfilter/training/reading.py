"""What an epoch read of the training set, by part: the proof that hidden samples cost nothing.

Counted where samples are read and images decoded, in every process (see `hvdfilter.data.reads`),
and held against nothing: who reads `metrics.jsonl` compares it with what was kept and hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hvdfilter.data import Images
from hvdfilter.world import World

_PARTS = ("training", "rescoring")


class Reading:
    """Counts from its making, at the start of an epoch (or of what a resumed run has left of it).

    Loaders fetch ahead: a part is over once all of its batches have been taken.
    """

    def __init__(self, images: Images) -> None:
        self._reads, self._before = images.reads, images.reads.total()
        self._parts = np.zeros((len(_PARTS), 2), np.int64)

    def mark(self, part: str) -> None:
        """Book what was read since the last mark to `part`, training or rescoring."""
        now = self._reads.total()
        self._parts[_PARTS.index(part)] += now - self._before
        self._before = now

    def record(self, world: World) -> dict[str, Any]:
        """Collective. "samples_read" and "images_decoded" of all ranks, each by part."""
        total = world.collective.allreduce(self._parts, "sum").tolist()
        return {
            name: {part: counts[column] for part, counts in zip(_PARTS, total, strict=True)}
            for column, name in enumerate(("samples_read", "images_decoded"))
        }
