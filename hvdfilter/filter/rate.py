"""RateScale: makes up in the learning rate for the samples that an epoch hides.

It multiplies the rate only while `optimizer.step` runs, so no scheduler ever sees it: the rate that
a step used is `group["lr"] * scale`. A step that a gradient scaler skips changes nothing.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

from hvdfilter.errors import InputError


class RateScale:
    """Multiplies every parameter group's `lr` by `scale` for the duration of each step.

    Any number of optimisers may be attached, each as it is or in the wrapper of a library
    (Horovod's, Accelerate's, Lightning's).
    """

    def __init__(self) -> None:
        self.scale = 1.0
        self._attached: list[torch.optim.Optimizer] = []
        self._unscaled: WeakKeyDictionary[torch.optim.Optimizer, list[Any]] = WeakKeyDictionary()

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Hook into `optimizer.step`; a second call with the same optimiser changes nothing.

        Raises `InputError` for what has no step that can be hooked into.
        """
        optimizer = _hooked(optimizer)
        if all(optimizer is not known for known in self._attached):
            self._attached.append(optimizer)
            optimizer.register_step_pre_hook(self._before)
            optimizer.register_step_post_hook(self._after)

    # Horovod's optimiser is a subclass whose step calls the original's, so the hooks run twice,
    # one step inside the other: the first `before` scales, the first `after` restores. A step
    # that raised left the scaled rate in place, and the next one starts from there.
    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if optimizer not in self._unscaled:
            self._unscaled[optimizer] = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * self.scale

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates = self._unscaled.pop(optimizer, None)
        if rates is not None:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate


def _hooked(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser whose step runs the hooks: inside a wrapper that never called torch's init."""
    inner = optimizer
    while not hasattr(inner, "_optimizer_step_pre_hooks"):
        inner = getattr(inner, "optimizer", None)
        if inner is None:
            raise InputError(
                f"{type(optimizer).__name__} is no torch optimizer, and holds none as .optimizer: "
                "give begin_epoch or attach the optimizer itself"
            )
    return inner
