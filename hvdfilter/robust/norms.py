"""The norms: how a vector is measured, and the step that goes furthest in one.

A perturbation of at most r in the *attack* norm changes w.x by at most r times the *dual* norm of
w. So the margin that an attack must overcome is y w.x over the dual norm of the weights, and
steepest descent in that dual norm is what makes it large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hvdfilter.errors import InputError
from hvdfilter.registry import nearest

FOURIER = "fourier-linf"


@dataclass(frozen=True)
class Norm:
    """One norm of vectors [..., d], taken over the last axis.

    dual: the name of its dual. direction: of one gradient [d], the vector of norm 1 along which it
    rises fastest, their product being the dual norm of the gradient.
    """

    name: str
    dual: str
    measure: Callable[[Tensor], Tensor]
    direction: Callable[[Tensor], Tensor]


def _largest(gradient: Tensor) -> Tensor:
    """The coordinate of largest magnitude alone, the first of equals."""
    at = gradient.abs().argmax()
    unit = torch.zeros_like(gradient)
    unit[at] = gradient[at].sign()
    return unit


def _unit(gradient: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(gradient)
    return gradient / length if length > 0 else torch.zeros_like(gradient)


NORMS = {
    norm.name: norm
    for norm in (
        Norm("l2", "l2", lambda v: torch.linalg.vector_norm(v, 2, -1), _unit),
        Norm("l1", "linf", lambda v: v.abs().sum(-1), _largest),
        Norm("linf", "l1", lambda v: v.abs().amax(-1), torch.sign),
    )
}
ATTACKS = (*NORMS, FOURIER)


def norm(name: str) -> Norm:
    """The norm of this name; `InputError` with the names there are."""
    known(name, tuple(NORMS))
    return NORMS[name]


def known(name: str, names: tuple[str, ...], what: str = "norm") -> None:
    """Raise `InputError` unless `name` is one of `names`."""
    if name not in names:
        near = nearest(str(name), names)
        meant = "" if near is None else f"; did you mean {near}?"
        raise InputError(f"unknown {what} {name!r}{meant} (there are: {', '.join(names)})")


def weight_size(weights: Tensor, attack: str, dims: int | None = None) -> Tensor:
    """[K]: the dual of the attack norm, of each of the weights [K, *shape].

    For `fourier-linf`, the largest magnitude in the unitary Fourier transform of a perturbation
    over the last `dims` axes of the shape (None: all), it is the sum of the magnitudes in that of
    the weights.
    """
    known(attack, ATTACKS)
    if attack == FOURIER:
        axes = range(-(weights.ndim - 1 if dims is None else dims), 0)
        weights = torch.fft.fftn(weights, dim=tuple(axes), norm="ortho")
        return weights.abs().flatten(1).sum(1)
    return NORMS[NORMS[attack].dual].measure(weights.flatten(1))
