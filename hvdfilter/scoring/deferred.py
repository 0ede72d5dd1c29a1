"""DeferredCheck: bad rows of a GPU batch, found one step late and without waiting for the device.

Kernels on a GPU mark bad rows with NaN instead of raising. Reading the marks at once would stall
the queue; an event and one pinned byte let the host look when the kernels are long done.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.scoring.scores import Scores


class DeferredCheck:
    """Remembers the last batch scored on a GPU until its marks can be read for nothing."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Scores] | None = None
        self._flag: Tensor | None = None
        self._event: torch.cuda.Event | None = None

    def note(self, ids: Tensor, scores: Scores) -> None:
        """Watch a batch; CPU batches have been checked already and are passed over."""
        if not scores.loss.is_cuda:
            return
        if self._flag is None:
            self._flag = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._event = torch.cuda.Event()
        assert self._event is not None
        self._flag.copy_(scores.loss.isnan().any(), non_blocking=True)
        self._event.record()
        self._last = ids, scores

    def take(self) -> tuple[Tensor, Scores] | None:
        """The batch noted last if it has bad rows, else None; waits for that batch alone."""
        last, self._last = self._last, None
        if last is None or self._event is None or self._flag is None:
            return None
        self._event.synchronize()
        return last if bool(self._flag) else None
