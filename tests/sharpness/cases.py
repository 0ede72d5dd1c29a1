"""Small networks with data, and the Hessian of their loss row by row, by plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hvdfilter.sharpness.mean_loss import Losses
from hvdfilter.world import World
from tests.agreement.worlds import ThreadCollective

Batch = tuple[Tensor, Tensor]


class Case(NamedTuple):
    """A network and its samples. Float64, so that only the method is measured."""

    model: nn.Module
    x: Tensor
    labels: Tensor

    def batches(self, *sizes: int) -> list[Batch]:
        """The samples in batches of these sizes."""
        return list(zip(self.x.split(sizes), self.labels.split(sizes), strict=True))

    def copies(self, count: int) -> list[nn.Module]:
        """The network once for each of the threads that stand for ranks."""
        return [deepcopy(self.model) for _ in range(count)]


def perceptron(seed: int) -> Case:
    """51 weights, 30 samples of 3 classes."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return Case(model, torch.randn(30, 4).double(), torch.randint(3, (30,)))


def convolutional(seed: int) -> Case:
    """Rectifiers, pooling, BatchNorm with statistics of its own, a frozen layer: 139 weights."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 2, 2),
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.Linear(6, 3),
    ).double()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean, norm.running_var = torch.randn(4).double(), torch.rand(4).double() + 0.5
    model[6].weight.requires_grad_(False)
    return Case(model, torch.randn(30, 1, 8, 8).double(), torch.randint(3, (30,)))


CASES: dict[str, Callable[[int], Case]] = {
    "perceptron": perceptron,
    "convolutional": convolutional,
}


def world(collective: ThreadCollective) -> World:
    """A world of threads, as its rank sees it."""
    return World(collective.rank, collective.size, 0, torch.device("cpu"), collective)


def climbing(model: nn.Module, batch: Batch) -> Tensor:
    """The negative of the usual losses: its Hessian has the negatives of all eigenvalues."""
    return -F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def hessian(case: Case, losses: Losses) -> NDArray[np.float64]:
    """[n, n], a row a weight: the gradient of that weight's gradient, on the whole set at once."""
    case.model.eval()
    mean = losses(case.model, (case.x, case.labels)).mean()
    weights = [p for p in case.model.parameters() if p.requires_grad]
    slopes = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(mean, weights, create_graph=True)]
    )
    rows = [
        torch.cat(
            [
                g.reshape(-1)
                for g in torch.autograd.grad(
                    slope, weights, retain_graph=True, materialize_grads=True
                )
            ]
        )
        for slope in slopes
    ]
    return torch.stack(rows).numpy()
