"""One training step of a Filter: its work, its error told to the other ranks, its cost booked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hvdfilter.costs import Costs
from hvdfilter.errors import InputError
from hvdfilter.filter.flag import StepFlag
from hvdfilter.filter.observing import Observer


class Step:
    """Called with what makes a batch's loss, and its arguments; returns the loss.

    A batch that is refused raises at once in a world of one. In a larger one the loss is NaN, with
    a backward that keeps this rank in step, and all ranks raise at their next step.
    """

    def __init__(self, flag: StepFlag, observer: Observer, costs: Costs) -> None:
        self._flag, self._observer, self._costs = flag, observer, costs

    def __call__(self, work: Callable[..., Tensor], first: Any, *others: Any) -> Tensor:
        """`work(first, *others)`, where `first` is what the model gave."""
        if not torch.is_grad_enabled():  # validation: no step that the ranks take together
            return work(first, *others)
        started = time.perf_counter()
        self._flag.settle()
        error = self._observer.overdue()
        try:
            loss = work(first, *others)
        except InputError as refused:
            error = error or refused
            loss = _spoilt(first)
        self._flag.post(error)
        self._costs.add("scoring", time.perf_counter() - started)
        return loss


def _spoilt(of: Any) -> Tensor:
    if isinstance(of, Tensor) and of.requires_grad:
        return of.sum() * float("nan")
    return torch.full((), float("nan"), requires_grad=True)
