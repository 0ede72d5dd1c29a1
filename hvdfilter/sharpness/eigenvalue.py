"""The largest eigenvalue of the Hessian of the mean loss, from products with it alone.

Lanczos' method: power iteration that keeps what its products have said. It costs the same product
and the same allreduce a step, holds three vectors, and finds the largest eigenvalue itself where
power iteration finds that of largest magnitude, which may be negative. To a residual of 0.1 % it
took 6 to 8 products on two networks trained on digits where power iteration took 9 to 22
(`python -m benchmarks.eigenvalue`). Nothing but the eigenvalue is found: no eigenvector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hvdfilter.agreement import Call, Collective
from hvdfilter.agreement.random import uniform01
from hvdfilter.errors import InputError
from hvdfilter.sharpness.mean_loss import MeanLoss, Vector

_STREAM = 0x1A2C  # keeps these numbers apart from others drawn for the same seed


@dataclass(frozen=True)
class Eigenvalue:
    """What `largest_eigenvalue` found.

    value: of the Hessian of the mean loss. residual: the Hessian has an eigenvalue within this of
    `value`. converged: whether it is as small as was asked for, or as rounding allows. products:
    with the Hessian, each two passes there and back over all samples. loss: the mean loss at these
    weights. samples: it is the mean of.
    """

    value: float
    residual: float
    converged: bool
    products: int
    loss: float
    samples: int


def largest_eigenvalue(
    loss: MeanLoss, *, tolerance: float = 1e-3, most: int = 100, seed: int = 0
) -> Eigenvalue:
    """Collective. The largest eigenvalue of the Hessian of `loss`, the most positive one.

    tolerance: it ends when the residual is below this share of the eigenvalue. most: or after so
    many products, and then says that it has not converged. seed: of the vector it starts from.

    Lanczos (1950); Paige, "Computational variants of the Lanczos method for the eigenproblem",
    1972, without reorthogonalising: rounding then repeats eigenvalues that have been found, and
    this one ends at the first. The residual is ||H v - value v|| of the unit vector v that it
    stands for, and a symmetric matrix has an eigenvalue within it. That no larger one was missed
    is as sure as that a random start is not orthogonal to its eigenvector.

    Every rank holds the same vectors, bit for bit. Raises `InputError`, on every rank, for
    another loss than a finite one, a model without trainable parameters, and ranks that differ.
    """
    error = None
    if not 0 < tolerance < 1:
        error = InputError(f"tolerance is {tolerance}; it must be between 0 and 1")
    elif most < 1:
        error = InputError(f"most is {most}; it takes at least 1 product")
    loss.open(Call.LARGEST_EIGENVALUE, error, most=most, seed=seed)
    return _iterate(loss, tolerance, most, seed)


def _iterate(loss: MeanLoss, tolerance: float, most: int, seed: int) -> Eigenvalue:
    vector = start(loss, seed)
    before: Vector = np.zeros(loss.size)
    # The Hessian in the basis of all vectors so far: `diagonal` on its diagonal, `beside` next to.
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        product, mean = loss.product(vector)
        (along,) = _told(loss.collective, float(vector @ product))
        diagonal.append(along)
        product -= along * vector
        if beside:
            product -= beside[-1] * before
        rest = float(np.linalg.norm(product))
        values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
        value, residual = values[-1], rest * abs(vectors[-1, -1])
        rounding = loss.rounding * np.abs(values).max()
        enough = residual <= max(tolerance * abs(value), rounding)
        rest, value, residual, enough = _told(loss.collective, rest, value, residual, enough)
        if enough or len(diagonal) == most:
            return Eigenvalue(value, residual, bool(enough), len(diagonal), mean, loss.samples)
        beside.append(rest)
        before, vector = vector, product / rest


def start(loss: MeanLoss, seed: int) -> Vector:
    """Collective. The unit vector that an iteration starts from."""
    vector = uniform01(seed, 0, np.arange(loss.size), _STREAM) - 0.5
    (length,) = _told(loss.collective, float(np.linalg.norm(vector)))
    return vector / length


def _told(collective: Collective, *numbers: float) -> list[float]:
    """Collective. Rank 0's numbers: those of other processors may differ in their last bits."""
    return [float(number) for number in collective.broadcast(np.array(numbers, np.float64))]
