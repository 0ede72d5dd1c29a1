"""How many samples of a set were read, and how many images decoded, by all processes of a rank.

Worker processes of a DataLoader get copies of the set; each copy counts in memory that it shares
with the original, in a row of its own, so that nothing is locked and nothing is lost. It counts
what the readers do, never what a sampler or a loader meant them to do.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

_ROWS = 64  # copies that share one piece of memory


class Reads:
    """Counts from nothing. A pickled copy, where it is a worker's, adds to the same total."""

    def __init__(self) -> None:
        self._mine = np.zeros(2, np.int64)
        self._shared: list[torch.Tensor] = []
        self._copies = 0
        self._lock = threading.Lock()

    def add(self, samples: int = 0, decoded: int = 0) -> None:
        """Count samples that were asked of the set, and images that were decoded for them."""
        with self._lock:
            self._mine += (samples, decoded)

    def total(self) -> np.ndarray:
        """int64 [2]: samples read and images decoded so far, here and in all copies."""
        total = self._mine.copy()
        for block in self._shared:
            total += block.numpy().sum(axis=0)
        return total

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            row = self._copies % _ROWS
            if row == 0:
                self._shared.append(torch.zeros(_ROWS, 2, dtype=torch.int64).share_memory_())
            self._copies += 1
            return {"row": self._shared[-1][row]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._mine = state["row"].numpy()
