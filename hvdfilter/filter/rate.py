"""RateScale: makes up in the learning rate for the samples that an epoch hides.

It multiplies the rate only while `optimizer.step` runs, so no scheduler ever sees it.
"""

from __future__ import annotations

from typing import Any

import torch


class RateScale:
    """Multiplies every parameter group's `lr` by `scale` for the duration of each step."""

    def __init__(self) -> None:
        self.scale = 1.0
        self._attached: list[torch.optim.Optimizer] = []
        self._unscaled: list[Any] | None = None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Hook into `optimizer.step`; a second call with the same optimiser changes nothing."""
        if all(optimizer is not known for known in self._attached):
            self._attached.append(optimizer)
            optimizer.register_step_pre_hook(self._before)
            optimizer.register_step_post_hook(self._after)

    # Horovod's optimiser is a subclass whose step calls the original's, so the hooks run twice,
    # one step inside the other: the first `before` scales, the first `after` restores. A step
    # that raised left the scaled rate in place, and the next one starts from there.
    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._unscaled is None:
            self._unscaled = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * self.scale

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._unscaled is not None:
            for group, rate in zip(optimizer.param_groups, self._unscaled, strict=True):
                group["lr"] = rate
            self._unscaled = None
