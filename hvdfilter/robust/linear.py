"""`fit_linear`: the linear classifier that survives the largest perturbation in a norm.

By the optimiser whose bias it is, on the logistic loss, with a certificate of how close it is. It
has no bias term (append a column of ones) and is for data that fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hvdfilter.errors import InputError
from hvdfilter.robust.norms import NORMS, known
from hvdfilter.robust.separable import check_separable, signed
from hvdfilter.robust.steepest import SteepestDescent

# Steps between two looks at the margin.
LOOK = 100
# After so many steps they grow shorter, as 1 / sqrt(step): the largest steps that the curvature
# allows raise the margin fastest, but in l1 and l-infinity leave the samples' weights swinging.
SETTLE = 10_000


# (step, weights of the classifier so far)
Watch = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class Fit:
    """A classifier and its margin in a norm: the perturbation that every sample survives.

    weights: float64 [d] (or the shape of a sample). margin: the smallest y w.x over the size of w.
    bound: no classifier has a larger one. history: (step, margin, bound) each time they were looked
    at.
    """

    weights: Tensor
    margin: float
    bound: float
    steps: int
    history: tuple[tuple[int, float, float], ...]


def fit_linear(
    features: Tensor,
    labels: Tensor,
    attack: str = "l2",
    steps: int = 100_000,
    tolerance: float = 0.01,
    watch: Watch = lambda step, weights: None,
) -> Fit:
    """The classifier sign(w.x) of the largest margin against perturbations bounded in `attack`.

    features: [N, d]; labels: [N] of 0 and 1; attack: `l2`, `linf` or `l1`. Steepest descent in the
    dual norm on the logarithm of the mean logistic loss, which has the loss's directions but keeps
    its gradient from vanishing; at most `steps` steps, of the rate 1 / R^2 that the curvature
    allows, R the largest sample in the attack norm. It ends as soon as the margin is proved to be
    within `tolerance` of the largest: for any weights q_i >= 0 of sum 1, no margin exceeds the
    attack norm of sum_i q_i y_i x_i, and every gradient is such a sum. Nothing is drawn at random.
    watch: called with the weights every `LOOK` steps and after the last.

    Raises `InputError` for an unknown norm, odd labels, features that are not finite, and data that
    no linear classifier separates, with the samples that contradict each other.
    """
    known(attack, tuple(NORMS))
    at_least_one(steps)
    rows = signed(features, labels)
    check_separable(rows)
    measure, size = NORMS[attack].measure, NORMS[NORMS[attack].dual].measure
    reach = float(measure(rows).max())
    weights = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    optimizer = SteepestDescent([weights], lr=1 / reach**2, norm=NORMS[attack].dual)
    lowest = torch.full((), torch.inf, dtype=torch.float64, device=rows.device)
    best, history = (-float("inf"), weights.clone()), []
    for step in range(1, steps + 1):
        weights.grad = log_loss_gradient(rows, rows @ weights)
        lowest = torch.minimum(lowest, measure(weights.grad))
        optimizer.param_groups[0]["lr"] = min(1, SETTLE / step) ** 0.5 / reach**2
        optimizer.step()
        if step % LOOK and step != steps:
            continue
        bound = float(lowest)
        margin = float((rows @ weights).min() / size(weights))
        if margin > best[0]:
            best = margin, weights.clone()
        history.append((step, margin, bound))
        watch(step, weights.detach().clone())
        if best[0] >= (1 - tolerance) * bound:
            break
    if best[0] <= 0:
        raise InputError(
            f"{steps} steps found no classifier of these data, whose margin may be as large as "
            f"{bound:.3g}: allow more steps"
        )
    return Fit(best[1] / size(best[1]), best[0], bound, step, tuple(history))


def at_least_one(steps: int) -> None:
    """Refuse a fit of no step."""
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be at least 1")


def log_loss_gradient(rows: Tensor, margins: Tensor) -> Tensor:
    """The gradient with respect to w of log sum_i log(1 + exp(-margins_i)), up to a factor.

    rows: y_i x_i [N, d], margins: [N], their products with w. The factor, near 1, brings the
    samples' weights to a sum of 1, so that none underflows however large the margins are.
    """
    return -(sample_weights(margins) @ rows)


def sample_weights(margins: Tensor) -> Tensor:
    """How much each sample pulls under the logistic loss: 1 / (1 + exp(margin)), of sum 1."""
    return torch.softmax(F.logsigmoid(-margins), 0)
