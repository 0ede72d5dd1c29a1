"""Extrapolation: gradients taken a step ahead, where the last gradient would have led.

Lin, Kong, Stich, Jaggi, "Extrapolation for Large-batch Training in Deep Learning", ICML 2020
(arXiv:2006.05720): with g the gradient that the step before averaged over the ranks,

    w' = w - factor * rate * g        the weights of forward and backward
    w  = step(w, gradient at w')      by the optimiser, from where it was

which is extragradient with a gradient that is there already (Popov 1980): no second backward and
no second allreduce. The paper's workers each go ahead along their own last gradient; here all go
along the averaged one, so that every rank has the same weights, scores and BatchNorm statistics.
It holds a gradient and a copy of the weights, and never changes how the optimiser steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Extrapolation:
    """Goes ahead of `optimizer` by `factor` times its step without momentum.

    scale: what each group's `lr` is multiplied with while a step runs. A factor of 0 does nothing.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, factor: float, scale: Callable[[], float]
    ) -> None:
        self._optimizer, self._factor, self._scale = optimizer, factor, scale
        self._past: list[Tensor | None] = []

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """The weights are those ahead, within the block; exactly what they were after it."""
        if not any(gradient is not None for gradient in self._past):
            yield
            return
        kept = [parameter.detach().clone() for parameter, _ in self._parameters()]
        try:
            with torch.no_grad():
                for (parameter, rate), gradient in zip(self._parameters(), self._past, strict=True):
                    if gradient is not None:
                        parameter.sub_(gradient, alpha=self._factor * rate * self._scale())
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), before in zip(self._parameters(), kept, strict=True):
                    parameter.copy_(before)

    def remember(self) -> None:
        """Keep the gradients of the step that was taken; they are not to be changed afterwards."""
        if self._factor:
            self._past = [parameter.grad for parameter, _ in self._parameters()]

    def state_dict(self) -> dict[str, Any]:
        """The last gradient, by the parameter's number; empty before the first step."""
        return {
            str(number): gradient
            for number, gradient in enumerate(self._past)
            if gradient is not None
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        if self._factor and state:
            self._past = [
                state[str(number)].to(parameter.device) if str(number) in state else None
                for number, (parameter, _) in enumerate(self._parameters())
            ]

    def _parameters(self) -> list[tuple[Tensor, float]]:
        """Each parameter with the rate of its group."""
        groups = self._optimizer.param_groups
        return [(parameter, group["lr"]) for group in groups for parameter in group["params"]]
