"""The learning rate: linear scaling, warm-up and cosine by progress, and the hidden share's scale.

`schedule` is a function of progress alone, so runs with fewer steps an epoch follow the same
curve. `RateScale` multiplies the rate only while `optimizer.step` runs.
"""

from __future__ import annotations

import math
from typing import Any

import torch

WARMUP_START = 0.1


def schedule(progress: float, epochs: int, warmup: float) -> float:
    """The rate as a multiple of its peak, `progress` epochs into `epochs`.

    Linear from `WARMUP_START` to 1 over the first `warmup` epochs (Goyal et al. 2017, section
    2.2), then a half cosine down to 0 (Loshchilov and Hutter 2017).
    """
    if progress < warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (epochs - warmup)))


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
