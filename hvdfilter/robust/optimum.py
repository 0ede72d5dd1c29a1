"""The largest margin that any linear classifier has, by mathematical programming.

What the optimisers tend to, computed without them: for tests, figures and small data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.robust.norms import ATTACKS, known
from hvdfilter.robust.separable import check_separable, signed

# Sides of the polygon that stands for a circle of complex numbers: it is too small by 3e-4.
SIDES = 128

Array = NDArray[Any]


def largest_margin(features: Tensor, labels: Tensor, attack: str) -> float:
    """The margin of the best classifier sign(w.x) against perturbations bounded in `attack`.

    features: [N, d]; labels: [N] of 0 and 1; attack: `l2`, `linf`, `l1` or `fourier-linf` (of one
    axis). Exact to the solver's 1e-7, `fourier-linf` to 3e-4. Raises what `fit_linear` raises.
    """
    known(attack, ATTACKS)
    rows = signed(features, labels)
    check_separable(rows)
    a = rows.cpu().numpy()
    if attack == "l2":
        return _l2(a)
    n, d = a.shape
    bounds: list[tuple[Any, Any]]
    # Variables w, s and the sizes t of the parts of w, whose sum or maximum is at most 1.
    if attack == "l1":
        bounds, parts, total = [(-1.0, 1.0)] * d, np.zeros((0, d)), np.zeros(0)
        owner = np.zeros((0, 0))
    else:
        bounds = [(None, None)] * d
        parts, owner, total = _absolute(d) if attack == "linf" else _circles(d)
    sizes = len(total)
    margin = np.hstack([-a, np.ones((n, 1)), np.zeros((n, sizes))])
    limits = np.hstack([parts, np.zeros((len(parts), 1)), -owner.reshape(len(parts), sizes)])
    budget = np.concatenate([np.zeros(d + 1), total])[None]
    found = _linprog(
        np.concatenate([np.zeros(d), [-1.0], np.zeros(sizes)]),
        np.vstack([margin, limits, budget]),
        np.append(np.zeros(n + len(parts)), 1.0),
        [*bounds, (None, None), *[(0.0, None)] * sizes],
    )
    return float(-found.fun)


def _l2(a: Array) -> float:
    """1 / |w| of the shortest w with a w >= 1, by nonnegative least squares.

    Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23.
    """
    from scipy.optimize import nnls

    scale = np.linalg.norm(a, axis=1).max()
    e = np.vstack([a.T / scale, np.ones(len(a))])
    target = np.append(np.zeros(a.shape[1]), 1.0)
    residual = e @ nnls(e, target)[0] - target
    return float(scale * -residual[-1] / np.linalg.norm(residual[:-1]))


def _absolute(d: int) -> tuple[Array, Array, Array]:
    """t_j >= +w_j and -w_j; the sum of t is at most 1."""
    unit = np.eye(d)
    return np.vstack([unit, -unit]), np.vstack([unit, unit]), np.ones(d)


def _circles(d: int) -> tuple[Array, Array, Array]:
    """t_k >= |k-th coefficient of the unitary transform of w|, in every direction of a polygon."""
    kernel = np.fft.rfft(np.eye(d), axis=0, norm="ortho")
    angles = 2 * np.pi * np.arange(SIDES) / SIDES
    turned = (np.exp(-1j * angles)[:, None, None] * kernel).real
    owner = np.tile(np.eye(len(kernel)), (SIDES, 1))
    # A real signal has each frequency twice, but for the first and an even length's last.
    twice = np.full(len(kernel), 2.0)
    twice[0] = 1.0
    if d % 2 == 0:
        twice[-1] = 1.0
    return turned.reshape(-1, d), owner, twice


def _linprog(cost: Array, a: Array, b: Array, bounds: list[tuple[Any, Any]]) -> Any:
    from scipy.optimize import linprog

    found = linprog(cost, A_ub=a, b_ub=b, bounds=bounds)
    if found.status != 0:
        raise InputError(f"the largest margin cannot be computed: {found.message}")
    return found
