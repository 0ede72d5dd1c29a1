"""The balls that perturbations stay within: l2 and l-infinity, of one radius a sample.

What an attack, adversarial training and friendly inputs share: the step that goes furthest in a
norm, and the way back into ball and box. It knows no model.
"""

from __future__ import annotations

import torch
from torch import Tensor

SEARCHED = ("l2", "linf")
# A step, as a share of the radius over the number of steps: enough to cross the ball.
STRIDE = 2.5


def stride(number: int, steps: int) -> float:
    """Length of step `number` of `steps`, as a share of the radius: long ones first, to cross the
    ball, then shorter and shorter ones, to settle."""
    return STRIDE / steps * 2 * (1 - number / steps)


def size(delta: Tensor, norm: str) -> Tensor:
    """[B]: the norm of each perturbation [B, ...]."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


def uphill(slope: Tensor, norm: str) -> Tensor:
    """The step of norm 1 along which a sample's function rises fastest; slope: [B, ...]."""
    # Where a gradient overflowed there is no way up: the sample stays where it is.
    slope = slope.nan_to_num(0.0, 0.0, 0.0)
    if norm == "linf":
        return slope.sign()
    length = size(slope, "l2").clamp(min=torch.finfo(slope.dtype).tiny)
    return slope / length.view(-1, *[1] * (slope.ndim - 1))


def inside(
    x: Tensor, delta: Tensor, radius: Tensor, norm: str, box: tuple[float, float] | None
) -> Tensor:
    """`delta` brought back into the ball, then x + delta into the box, which keeps the ball.

    radius: [B, 1, ...] of one size with x.
    """
    if norm == "linf":
        delta = torch.minimum(torch.maximum(delta, -radius), radius)
    else:
        length = size(delta, "l2").view_as(radius)
        delta = delta * (radius / length.clamp(min=torch.finfo(delta.dtype).tiny)).clamp(max=1)
    return delta if box is None else (x + delta).clamp(*box) - x
