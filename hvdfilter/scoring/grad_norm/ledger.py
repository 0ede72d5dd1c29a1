"""What each parameter's per-sample gradients have added up to since the last reading.

A parameter used once is settled the moment its layer's backward runs: only one number a sample is
kept. One that is used several times (a module called twice, a tensor shared by two modules) needs
cross terms, so its contributions wait here and are combined when the norms are read. Nothing here
knows a layer; it never lets a gradient pass that no layer has accounted for.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from hvdfilter.errors import InputError


class Piece(Protocol):
    """One use's share of a parameter's per-sample gradients, in its cheapest form."""

    def combine(self, others: list[Piece]) -> Tensor:
        """Squared norms [B], float64, of the per-sample sums of this piece and `others`."""


class Reader(Protocol):
    """Whoever wants more of a parameter's per-sample gradients than their norms, as they pass."""

    def rows(self, rows: Tensor) -> None:
        """A use's per-sample gradients [B, D] of a bias, scale or shift."""

    def product(self, layer: Any, x: Tensor, g: Tensor) -> None:
        """A use of a Linear's or Conv's weight: what its layer was given, and output gradients.

        Linear: x [B, T, K], g [B, T, M]; Conv: x [B, C, ...] as padded by `layer`, g [B, M, ...].
        """


class ParameterRecord:
    """The account of one trainable parameter."""

    def __init__(self, name: str, parameter: Tensor, family: str) -> None:
        self.name = name
        self.parameter = parameter
        self.family = family
        self.reader: Reader | None = None
        self.clear()

    def clear(self) -> None:
        """Forget all uses."""
        self.uses = 0
        self.squares: Tensor | None = None
        self.pieces: list[Piece] = []
        self.checked = False
        self._sole: tuple[int, int] | None = None
        self._total: Tensor | None = None

    @property
    def alone(self) -> bool:
        """Whether the parameter was used once, so that its squares need no cross terms."""
        return self.uses == 1

    def settle(self, squares: Tensor, gradient: Tensor) -> Tensor:
        """Take the squared norms [B] of the only use.

        Returns the gradient to hand on to autograd: in the parameter's own dtype, or the engine
        would convert it and the check could not know it again.
        """
        self._one_backward()
        gradient = gradient.to(self.parameter.dtype)
        self.squares = squares
        self._sole = (gradient.data_ptr(), gradient._version)
        return gradient

    def stash(self, piece: Piece, gradient: Tensor) -> Tensor:
        """Keep one of several uses until the norms are read; returns as `settle` does."""
        self._one_backward()
        gradient = gradient.to(self.parameter.dtype)
        self.pieces.append(piece)
        # Never in place: the first gradient is also autograd's own buffer.
        self._total = gradient if self._total is None else self._total + gradient
        return gradient

    def _one_backward(self) -> None:
        if self.squares is not None or self.checked:
            raise InputError(
                f"parameter '{self.name}' got a second gradient before the first was read: "
                "call norms(), or assign(), or reset() after every backward"
            )

    def check(self, gradient: Tensor) -> None:
        """Hook on the parameter: its whole gradient must be what its layers contributed.

        Catches a weight used outside of its layer (`F.linear(x, embedding.weight)`), whose norms
        would otherwise be silently too small.
        """
        if self._sole is not None:
            # The engine hands a single contribution over as the very same tensor; adding another
            # one makes a new tensor or raises the version of this one.
            whole = self._sole == (gradient.data_ptr(), gradient._version)
        elif self._total is not None:
            tolerance = 64 * torch.finfo(gradient.dtype).eps
            gap = torch.linalg.vector_norm(gradient - self._total)
            whole = bool(gap <= tolerance * torch.linalg.vector_norm(self._total))
        else:
            whole = False
        if not whole:
            raise InputError(
                f"parameter '{self.name}' has a gradient that its layer did not contribute: it is "
                "used outside of its layer, or a tensor hook changed its gradient"
            )
        self.checked = True
        self._total = None

    def total(self) -> Tensor | None:
        """Squared norms [B] over all uses, or None if no gradient reached the parameter."""
        if self.pieces:
            return self.pieces[0].combine(self.pieces[1:])
        return self.squares


class Ledger:
    """The records of all trainable parameters, and the batch size that all layers must share.

    user: the class that reads it, for what is refused; otherwise: its further remedy, if any.
    """

    def __init__(self, user: str = "GradNorm", otherwise: str = "") -> None:
        self.user, self.otherwise = user, otherwise
        self.records: dict[int, ParameterRecord] = {}
        self.samples = -1

    def record(self, name: str, parameter: Tensor, family: str) -> ParameterRecord:
        """The record of `parameter`, new or shared; `family` is the form of its pieces."""
        record = self.records.setdefault(id(parameter), ParameterRecord(name, parameter, family))
        if record.family != family:
            raise InputError(
                f"'{name}' and '{record.name}' are one tensor used by layers of different kinds: "
                f"{self.user} cannot form their cross terms{self.otherwise}"
            )
        return record

    def batch(self, samples: int, name: str) -> None:
        """Note the first dimension of a layer's input, which must be the batch everywhere."""
        if self.samples not in (-1, samples):
            raise InputError(
                f"layer '{name}' sees {samples} rows where earlier layers saw {self.samples}: "
                f"{self.user} needs the batch as the first dimension of every layer's input, and "
                "reset() after a batch whose norms are not read"
            )
        self.samples = samples

    def clear(self) -> None:
        """Forget the batch and every record's uses."""
        self.samples = -1
        for record in self.records.values():
            record.clear()

    def total(self) -> Tensor:
        """Squared norms [B], float64, over all parameters that got a gradient."""
        parts = [part for record in self.records.values() if (part := record.total()) is not None]
        if not parts:
            raise InputError("there are no gradients to read: call loss.backward() first")
        return torch.stack(parts).sum(dim=0)
