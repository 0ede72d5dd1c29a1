"""The smallest perturbation that changes what a linear model says, in closed form.

To cross from class y to class j takes (z_y - z_j) / |w_y - w_j| in the dual norm; the nearest class
decides. Nothing is searched for, so it is exact, and what a search is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.robust.norms import ATTACKS, known, weight_size


def linear_radius(
    weight: Tensor,
    x: Tensor,
    labels: Tensor,
    attack: str = "l2",
    bias: Tensor | None = None,
    dims: int | None = None,
) -> Tensor:
    """[B]: the largest perturbation of x, in the attack norm, that z = weight x + bias survives.

    weight: [C, *shape], or [*shape] for two classes, of which class 1 has z > 0; bias: [C], or one
    number; x: [B, *shape]; labels: int64 [B]. attack: `l2`, `linf`, `l1` or `fourier-linf`, the
    last over the `dims` last axes of the shape (all by default). 0 where x is classified wrongly as
    it is (a tie is wrong), infinite where no perturbation can change the class. x may leave its
    box. Raises `InputError` for an unknown norm or a shape that does not fit.
    """
    known(attack, ATTACKS)
    shape = x.shape[1:]
    if weight.shape == shape:  # two classes as two rows, one of them zero
        weight = torch.stack([torch.zeros_like(weight), weight])
        bias = None if bias is None else torch.stack([torch.zeros_like(bias), bias]).flatten()
    if weight.shape[1:] != shape:
        raise InputError(
            f"weight has the shape {tuple(weight.shape)}, samples have {tuple(shape)}: give "
            "[classes, *sample]"
        )
    if dims is not None and not 1 <= dims <= len(shape):
        raise InputError(f"dims is {dims}; a sample has {len(shape)} axes")
    logits = x.flatten(1) @ weight.flatten(1).T
    logits = logits if bias is None else logits + bias
    # A class at a time: [B, C] sizes, never [B, C, d] differences.
    nearest = torch.full_like(logits[:, 0], torch.inf)
    for other in range(len(weight)):
        gap = logits.gather(1, labels[:, None])[:, 0] - logits[:, other]
        size = weight_size(weight - weight[other], attack, dims)[labels]
        # Equal weights never cross, unless they do without a perturbation.
        distance = torch.where(size > 0, gap / size, torch.where(gap > 0, torch.inf, 0.0))
        nearest = torch.where(labels == other, nearest, torch.minimum(nearest, distance))
    return nearest.clamp(min=0)
