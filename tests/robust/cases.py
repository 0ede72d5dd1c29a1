"""Separable data, and the convex programme whose optimum the optimisers must reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor


def separable(seed: int, samples: int = 8, features: int = 30) -> tuple[Tensor, Tensor]:
    """Gaussian samples and coin-flip labels; more features than samples, so separable for sure."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, features))
    labels = rng.integers(0, 2, samples)
    return torch.from_numpy(x), torch.from_numpy(labels)


def convex_optimum(x: Tensor, labels: Tensor, attack: str) -> float:
    """max s with y_i w.x_i >= s and the dual norm of w at most 1, as cvxpy states it."""
    cp = pytest.importorskip("cvxpy", reason="cvxpy is not installed: pip install cvxpy")
    a = x.numpy() * (2 * labels.numpy() - 1)[:, None]
    w, s = cp.Variable(a.shape[1]), cp.Variable()
    if attack == "fourier-linf":
        f = np.fft.fft(np.eye(a.shape[1]), norm="ortho")
        parts = cp.vstack([f.real @ w, f.imag @ w])
        size = cp.sum(cp.norm(parts, 2, axis=0))
    else:
        size = cp.norm(w, {"l2": 2, "linf": 1, "l1": "inf"}[attack])
    problem = cp.Problem(cp.Maximize(s), [a @ w >= s, size <= 1])
    return float(problem.solve(solver="CLARABEL"))


def margin(x: Tensor, labels: Tensor, w: Tensor, attack: str) -> float:
    """The smallest y w.x over the dual norm of w, in NumPy."""
    a, v = x.numpy() * (2 * labels.numpy() - 1)[:, None], w.numpy()
    if attack == "fourier-linf":
        size = np.abs(np.fft.fft(v, norm="ortho")).sum()
    else:
        size = np.linalg.norm(v, {"l2": 2, "linf": 1, "l1": np.inf}[attack])
    return float((a @ v).min() / size)
