"""What one parameter adds to the clusters: inner products with its centres, and the sums for them.

A parameter has its own columns in the table of centres: the two factors of a weight's rank-1
centre, or the row of a bias, scale or shift. Nothing here knows of clusters' sizes or of ranks.
Shapes: B samples of the batch, k centres.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hvdfilter.clustering.positions import Use, rank_one
from hvdfilter.scoring.grad_norm.ledger import ParameterRecord


class Share(ABC):
    """The base: which columns of the table are this parameter's, and what it is to note.

    pick: from the size of a batch to the numbers of the samples of which to keep whole gradients.
    """

    width: int

    def __init__(
        self,
        record: ParameterRecord,
        start: int,
        dtype: torch.dtype,
        pick: Callable[[int], list[int]],
    ) -> None:
        self.name, self.dtype, self.pick = record.name, dtype, pick
        record.reader = self
        self.width = self._width(record.parameter)
        self.columns = slice(start, start + self.width)
        self.expect(None, True, 0)
        self.clear()

    def expect(self, table: Tensor | None, by_inner: bool, kin: int) -> None:
        """Read from now on for these centres, if any, with sums for one factor of the two.

        kin: which centre has the inner factors of the last one, that on trial, in convolutions.
        """
        self.centres = None if table is None else table[:, self.columns]
        self.by_inner, self.kin = by_inner, kin

    @abstractmethod
    def _width(self, parameter: Tensor) -> int:
        """Numbers of a centre of this parameter."""

    def clear(self) -> None:  # noqa: B027 (who keeps nothing forgets nothing)
        """Forget the batch."""

    def rows(self, rows: Tensor) -> None:
        """See Reader."""
        raise NotImplementedError

    def product(self, layer: Any, x: Tensor, g: Tensor) -> None:
        """See Reader."""
        raise NotImplementedError

    @abstractmethod
    def products(self) -> Tensor | None:
        """Inner products [B, k] of the batch's gradients with the centres; None if it has none."""

    @abstractmethod
    def sums(self, select: Tensor) -> Tensor | None:
        """`sum_i select_ik G_i` applied to the factor that is held, [k, ...]; select [B, k]."""

    @abstractmethod
    def picks(self, scale: Tensor) -> Tensor | None:
        """The picked samples' gradients, as centres [n, width], times `scale` [n, 1]."""

    @abstractmethod
    def sum_width(self, by_inner: bool) -> int:
        """Numbers of `sums` for a centre."""

    @abstractmethod
    def overlap(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products, float64 [n, m], of centres a [n, width] and b [m, width]."""

    def alike(self, row: Tensor, kin: Tensor) -> Tensor:
        """The centre nearest to `row` that can be tried beside `kin`; all [width]."""
        return row

    @abstractmethod
    def update(
        self, centres: Tensor, sums: Tensor, sizes: Tensor, by_inner: bool
    ) -> tuple[Tensor, Tensor]:
        """The best centres given `sums`, and by how much each cluster's scatter falls, [k].

        centres [k, width], sums [k, sum_width], sizes [k], all float64. A cluster without samples
        keeps its centre.
        """


class RowShare(Share):
    """A bias, scale or shift: its centre is the exact mean."""

    def _width(self, parameter: Tensor) -> int:
        return parameter.numel()

    def clear(self) -> None:
        """See Share."""
        self._rows: Tensor | None = None

    def rows(self, rows: Tensor) -> None:
        """See Reader; several uses add up."""
        rows = rows.to(self.dtype)
        self._rows = rows if self._rows is None else self._rows + rows

    def products(self) -> Tensor | None:
        """See Share."""
        if self._rows is None or self.centres is None:
            return None
        return self._rows @ self.centres.to(self._rows).T

    def sums(self, select: Tensor) -> Tensor | None:
        """See Share."""
        return None if self._rows is None else select.to(self.dtype).T @ self._rows

    def picks(self, scale: Tensor) -> Tensor | None:
        """See Share."""
        if self._rows is None:
            return None
        return self._rows[self.pick(len(self._rows))] * scale.to(self._rows)

    def sum_width(self, by_inner: bool) -> int:
        """See Share."""
        return self.width

    def overlap(self, a: Tensor, b: Tensor) -> Tensor:
        """See Share."""
        return a.double() @ b.double().T

    def update(
        self, centres: Tensor, sums: Tensor, sizes: Tensor, by_inner: bool
    ) -> tuple[Tensor, Tensor]:
        """See Share."""
        best = _best(centres, sums, sizes)
        return best, sizes * (best - centres).square().sum(dim=1)


class ProductShare(Share):
    """A weight of Linear or Conv: its centre is `outer (x) inner`, one factor updated at a time.

    With the other factor held, the best one is a plain least-squares solution, so that no update
    raises a cluster's scatter (alternating least squares).
    """

    def _width(self, parameter: Tensor) -> int:
        self.outputs, self.inputs = parameter.shape[0], parameter[0].numel()
        # Convolutions work in blocks: a filter more than 16 would cost as much as 16 more.
        self.convolves = parameter.dim() > 2
        return self.outputs + self.inputs

    def clear(self) -> None:
        """See Share."""
        self._products: Tensor | None = None
        self._applied: Tensor | None = None
        self._kept: list[tuple[Use, Tensor]] = []
        self._picked: list[Use] = []

    def product(self, layer: Any, x: Tensor, g: Tensor) -> None:
        """See Reader; several uses add up."""
        use = Use.of(layer, x.to(self.dtype), g.to(self.dtype))
        if picked := self.pick(len(g)):
            self._picked.append(use.some(picked))
        if self.centres is None:
            return
        outer, inner = self.centres.to(g.device).split([self.outputs, self.inputs], dim=1)
        outer = outer.unflatten(1, (use.g.shape[1], -1)).transpose(0, 1)  # [G, k, M]
        h = use.filtered(inner[:-1] if self.convolves else inner)
        number, last = len(inner) - 1, self.kin if self.convolves else -1
        if not self.by_inner and h.shape[3] > len(inner):
            # G_i inner_k for every centre: fewer numbers than the gradients it is made of.
            mine, theirs = h @ use.g.mT, outer
            own = mine[:, :, :number]
            self._applied = own if self._applied is None else self._applied + own
        else:
            mine, theirs = h, outer @ use.g
            self._kept.append((use, (theirs if self.by_inner else mine)[:, :, :number]))
        products = torch.cat(
            (
                (mine[:, :, :number] * theirs[..., :-1, :]).sum(dim=(1, 3)),
                (mine[:, :, last] * theirs[..., -1, :]).sum(dim=(1, 2))[:, None],
            ),
            dim=1,
        )
        self._products = products if self._products is None else self._products + products

    def products(self) -> Tensor | None:
        """See Share."""
        return self._products

    def sums(self, select: Tensor) -> Tensor | None:
        """See Share."""
        select, total = select.to(self.dtype)[:, None, :, None], None
        if self._applied is not None:
            total = (self._applied * select).sum(dim=0).transpose(0, 1).flatten(1)
        for use, kept in self._kept:
            kept = kept * select
            if self.by_inner:
                part = use.summed(kept)
            else:
                part = (kept @ use.g.mT).sum(dim=0).transpose(0, 1).flatten(1)
            total = part if total is None else total + part
        return total

    def picks(self, scale: Tensor) -> Tensor | None:
        """See Share."""
        if not self._picked:
            return None
        outer, inner = rank_one(self._picked)
        return torch.cat((outer * scale.to(outer), inner), dim=1)

    def sum_width(self, by_inner: bool) -> int:
        """See Share."""
        return self.inputs if by_inner else self.outputs

    def overlap(self, a: Tensor, b: Tensor) -> Tensor:
        """See Share."""
        outers, inners = zip(
            *(t.double().split([self.outputs, self.inputs], dim=1) for t in (a, b)), strict=True
        )
        return (outers[0] @ outers[1].T) * (inners[0] @ inners[1].T)

    def alike(self, row: Tensor, kin: Tensor) -> Tensor:
        """See Share."""
        if not self.convolves:
            return row
        (outer, inner), (_, held) = (t.split([self.outputs, self.inputs]) for t in (row, kin))
        length = held.square().sum()
        share = held @ inner / length if length > 0 else length
        return torch.cat((outer * share, held))

    def update(
        self, centres: Tensor, sums: Tensor, sizes: Tensor, by_inner: bool
    ) -> tuple[Tensor, Tensor]:
        """See Share."""
        outer, inner = centres.split([self.outputs, self.inputs], dim=1)
        held, old = (outer, inner) if by_inner else (inner, outer)
        curvature = sizes * held.square().sum(dim=1)
        best = _best(old, sums, curvature)
        falls = curvature * (best - old).square().sum(dim=1)
        return torch.cat((outer, best) if by_inner else (best, inner), dim=1), falls


def _best(old: Tensor, sums: Tensor, curvature: Tensor) -> Tensor:
    """The least-squares solution `sums / curvature`; the old one where nothing speaks for any."""
    known = (curvature > 0).unsqueeze(1)
    return torch.where(
        known, sums / curvature.clamp(min=torch.finfo(sums.dtype).tiny)[:, None], old
    )
