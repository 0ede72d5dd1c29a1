"""Expansion: train on the easiest samples first, and let the set grow by a fixed order.

Order and pace follow Hacohen and Weinshall, "On The Power of Curriculum Learning in Training Deep
Networks", ICML 2019 (arXiv:1904.03626): samples ranked once by a trained model, easiest first, and
their fixed exponential pacing, the set growing by the same factor each epoch, with the classes kept
balanced. What they call bootstrapping, ranking by a model of the same kind trained without a
curriculum, is a score file here (`hvdfilter score RUN`); without one, the opening epochs of the run
itself rank, by the mean of the losses they see. Progressive data expansion under that name (Deng,
Yang, Mirzasoleiman, Gu, NeurIPS 2023, arXiv:2306.04949) also grows the set class by class, but
adds samples at random and as many from each group; this is not its rule.

Each class enters by the same share, so that the set has the proportions of the whole. Sets are
nested: what has come in stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field, average
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, View, check_fraction, share_of
from hvdfilter.policies.floor import class_sizes
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static


@register
@dataclass(frozen=True)
class Expansion(Static):
    """Start with the easiest samples, by loss, and add the next ones until all are in.

    start: share that is trained first. until: share of the run from which `keep` is trained.
    keep=1.0: fraction trained then. scores="": path of a score file with `loss`; without one,
    everything is trained and observed for opening=5 epochs, and the set begins to grow from
    `start` after them. scale_lr=False: train at lr / (1 - F*).

    In between the share rises by the same factor each epoch. With integer labels it is a share of
    each class, rounded down but never to nothing.

    Cost: opening epochs of full training (none with a score file), and two small allreduces an
    epoch. Easy samples teach little, so fewer steps are the gain; with noisy labels the wrong ones
    come late.
    """

    name: ClassVar[str] = "expansion"
    source: ClassVar[str] = "Hacohen and Weinshall 2019, arXiv:1904.03626"
    cost: ClassVar[str] = "opening epochs of full training, or a score file"
    one_keep: ClassVar[bool] = True  # the share has a schedule of its own
    keep: float = 1.0
    opening: int = 5
    start: float = 0.3
    until: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.name, "until", self.until, zero=False)
        if not 0 < self.start <= self.keep:
            raise InputError(
                f"policy {self.name!r}: start={self.start} must be a share above 0 and at most "
                f"keep={self.keep}"
            )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The loss: of the score file, or the mean over the opening."""
        return (average("loss", "loss"),)

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The easiest first; a sample never observed comes last."""
        return np.negative(columns["loss"], dtype=np.float32)

    def share(self, epoch: int, epochs: int) -> float:
        """The share of the set, or of each class, that `epoch` of `epochs` trains.

        Raises `InputError` for an opening that leaves no epoch to grow in.
        """
        opening = 0 if self.scores else self.opening
        whole = round(self.until * epochs, 6) - opening
        if whole <= 0:
            raise InputError(
                f"policy {self.name!r}: opening={opening} leaves no epoch to grow in until "
                f"{self.until:g} of {epochs} epochs: lower it, or give a score file as scores=PATH"
            )
        if epoch < opening:
            return 1.0
        way = min(1.0, (epoch - opening) / whole)
        # Rounded, so that nodes of different C libraries make the same of it.
        return round(self.start ** (1 - way) * self.keep**way, 9)

    def plan(self, view: View) -> Plan:
        """Everything in the opening epochs, then the easiest."""
        self.share(view.epoch, view.epochs)  # refuses in the first epoch, not after the opening
        return super().plan(view)

    def choose(self, view: View, key: NDArray[np.float32]) -> Plan:
        """The first of each class by the fixed order."""
        share = self.share(view.epoch, view.epochs)
        labels = _classes(view)
        if labels is None:
            return Plan(key, max(1, share_of(share, view.num_samples)))
        sizes = class_sizes(view, labels, self.name)
        budgets = [min(int(n), max(1, share_of(share, int(n)))) for n in sizes]
        return Plan(key, np.array(budgets, np.int64), groups=labels)


def _classes(view: View) -> NDArray[Any] | None:
    """The class of each sample, those of a negative label in one of their own; None without."""
    if view.labels is None or view.labels.dtype.kind not in "iu":
        return None
    return np.maximum(view.labels.astype(np.int64) + 1, 0)
