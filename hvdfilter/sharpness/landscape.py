"""A plain picture of the loss around a model: a grid along two random directions.

Each filter of a direction has the norm of the model's own filter, so that the pictures of two
models compare although a network with rectifiers computes the same when one layer's weights are
doubled and the next one's halved: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss
Landscape of Neural Nets", 2018, arXiv:1712.09913. Nothing is drawn here. Running statistics of
BatchNorm stay those of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.agreement import Call
from hvdfilter.agreement.random import key64
from hvdfilter.errors import InputError
from hvdfilter.sharpness.mean_loss import MeanLoss, Vector


@dataclass(frozen=True)
class Landscape:
    """The mean loss on a grid.

    steps: float64 [points], how far along a direction, 0 in the middle; 1 is as long as the
    weights are themselves. loss: float64 [points, points], in row i and column j that of the
    weights moved by steps[i] along the second and steps[j] along the first direction. May be
    infinite or NaN far out.
    """

    steps: NDArray[np.float64]
    loss: NDArray[np.float64]

    @property
    def centre(self) -> float:
        """The mean loss of the model itself."""
        middle = len(self.steps) // 2
        return float(self.loss[middle, middle])


def landscape(loss: MeanLoss, *, points: int = 21, span: float = 1.0, seed: int = 0) -> Landscape:
    """Collective. The loss around the model, the same numbers on every rank.

    points: on each side, odd, so that the model is in the middle; span: the largest step; seed: of
    the directions, which are the same for models of the same shapes before they are normalised.
    Costs points ** 2 forward passes over all samples, each rank over its own. Raises `InputError`,
    on every rank, for a loss that is not finite at the model itself.
    """
    error = None
    if points < 3 or points % 2 == 0:
        error = InputError(f"points is {points}; it must be odd and at least 3")
    elif not 0 < span < float("inf"):
        error = InputError(f"span is {span}; the largest step must be above 0")
    bits = int(np.float64(span).view(np.int64))
    loss.open(Call.LANDSCAPE, error, points=points, seed=seed, **{"bits of span": bits})
    grid = _Grid(loss, np.linspace(-span, span, points), seed)
    with torch.no_grad():
        found = loss.mean(grid.sums, points**2).reshape(points, points)
    middle = Landscape(grid.steps, found)
    if not np.isfinite(middle.centre):
        loss.collective.share_error(
            InputError(f"the mean loss of the model is {middle.centre}: there is nothing to draw")
        )
    return middle


def direction(parameters: Sequence[Tensor], seed: int, number: int) -> list[Tensor]:
    """A random Gaussian direction, each filter of the norm of the parameter's own.

    A filter is what makes one output: all of a parameter but its first axis. Biases, and the
    scales and shifts of normalisation (all with one axis), do not move.
    """
    found = []
    for place, parameter in enumerate(parameters):
        if parameter.dim() <= 1:
            found.append(torch.zeros_like(parameter))
            continue
        # On the CPU, where a seed gives the same numbers whatever the weights are on.
        generator = torch.Generator().manual_seed(key64(seed, number, place) & (2**63 - 1))
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        own = parameter.detach().cpu().double()
        ratio = _norms(own) / _norms(drawn)
        found.append((drawn * ratio).to(parameter))
    return found


def _norms(parameter: Tensor) -> Tensor:
    sizes = torch.linalg.vector_norm(parameter.flatten(1), dim=1)
    return sizes.view(-1, *[1] * (parameter.dim() - 1))


class _Grid:
    """The losses of one batch at a time, at all points."""

    def __init__(self, loss: MeanLoss, steps: NDArray[np.float64], seed: int) -> None:
        self.loss, self.steps = loss, steps
        self._across = direction(loss.parameters, seed, 0)
        self._up = direction(loss.parameters, seed, 1)
        self._origin = [p.detach().clone() for p in loss.parameters]

    def sums(self, batch: Any) -> tuple[Vector, int]:
        """The batch's losses summed at every point, row by row, and how many they are."""
        found, count = np.zeros((len(self.steps), len(self.steps))), 0
        try:
            for i, up in enumerate(self.steps):
                for j, across in enumerate(self.steps):
                    self._move(float(across), float(up))
                    losses = self.loss.losses_of(batch)
                    found[i, j], count = losses.double().sum().item(), losses.numel()
        finally:
            self._move(0.0, 0.0)
        return found.reshape(-1), count

    def _move(self, across: float, up: float) -> None:
        places = zip(self.loss.parameters, self._origin, self._across, self._up, strict=True)
        for parameter, origin, first, second in places:
            parameter.copy_(origin)
            if across or up:
                parameter.add_(first, alpha=across).add_(second, alpha=up)
