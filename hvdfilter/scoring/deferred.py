"""DeferredCheck: what is wrong with a GPU batch, found one step late and without waiting.

Kernels on a GPU mark what is wrong instead of raising. Reading the marks at once would stall the
queue; an event and one pinned byte let the host look when the kernels are long done.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DeferredCheck:
    """Remembers the last batch on a GPU until its mark can be read for nothing."""

    def __init__(self) -> None:
        self._last: Any = None
        self._flag: Tensor | None = None
        self._event: torch.cuda.Event | None = None

    def watch(self, wrong: Tensor, batch: Any) -> None:
        """Watch a batch of which `wrong`, a bool scalar on a GPU, will tell whether to look."""
        if self._flag is None:
            self._flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        self._flag.copy_(wrong, non_blocking=True)
        # On the stream of the copy, which is that of the scores' device, current or not.
        self._event = torch.cuda.current_stream(wrong.device).record_event()
        self._last = batch

    def take(self) -> Any:
        """The batch watched last if something is wrong with it, else None; waits for it alone."""
        last, self._last = self._last, None
        if last is None or self._event is None or self._flag is None:
            return None
        self._event.synchronize()
        return last if bool(self._flag) else None
