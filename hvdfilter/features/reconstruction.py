"""Reconstruction: what a small auto-encoder of the features cannot give back of a sample.

The auto-encoder is linear. Its optimum is known: the span of the largest principal directions
(Bourlard and Kamp 1988; Baldi and Hornik 1989), so it is computed, by one sum over the ranks and
one eigenproblem, and not trained: no rate, no seed, no epochs, and no error above the least one. A
network with tanh between could do better only by learning for longer than this whole score takes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.agreement import Collective
from hvdfilter.features.standard import chunks

# Of the variance of all features that the code of the auto-encoder holds: what is common to the
# samples. What is left is what single samples add.
SHARE = 0.9


def reconstruction_error(features: Tensor, collective: Collective) -> NDArray[np.float32]:
    """Collective. ||x - decode(encode(x))|| of each sample, float32 [n]; large: it adds much.

    features: float32 [n, d] of this rank, standardised. O(n d^2) time and 8 d^2 bytes, one
    allreduce of as many.
    """
    code = encoder(features, collective)
    errors = torch.empty(len(features), dtype=torch.float64)
    for part, rows in chunks(features):
        errors[part] = torch.linalg.vector_norm(rows - (rows @ code) @ code.T, dim=1)
    return errors.float().numpy()


def encoder(features: Tensor, collective: Collective, share: float = SHARE) -> Tensor:
    """Collective. The fewest orthonormal directions with `share` of the variance, float64 [d, k].

    x @ code encodes, code.T decodes.
    """
    width = features.shape[1]
    products = torch.zeros(width, width, dtype=torch.float64)
    for _, rows in chunks(features):
        products += rows.T @ rows
    products = torch.from_numpy(collective.allreduce(products.numpy(), "sum"))
    variance, directions = torch.linalg.eigh(products)  # ascending
    held = variance.clamp(min=0).flip(0).cumsum(0)
    # A rounding error short of the share is the share.
    size = int((held < share * held[-1] * (1 - 1e-9)).sum()) + 1 if width else 0
    return directions.flip(1)[:, :size].contiguous()
