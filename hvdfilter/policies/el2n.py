"""EL2N: keep the samples with the largest error early in training.

Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in
Training", NeurIPS 2021 (arXiv:2107.07075): the L2 norm of the error vector ||p - onehot(y)||, the
mean over some models a few epochs into training. Differences: the authors score the test-time view
of a checkpoint for each of ten models; the opening epochs here average what training itself sees,
one observation an epoch, and cost no pass of their own. Scores at initialisation, which their
paper also studies, are refused: they do not reproduce.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field, average
from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, View
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static


@register
@dataclass(frozen=True)
class El2n(Static):
    """Keep the largest error vectors, by their mean norm over the opening epochs.

    keep=0.7, scores="", opening=10, scale_lr=False: as of every static policy. seeds=1: models of
    other seeds whose opening epochs are averaged; above 1 `hvdfilter train` trains them first.

    Cost: seeds * opening epochs of full training once (none with a score file). Helps with up
    to about half of CIFAR-10 hidden; hurts beyond, and with noisy labels: the largest errors.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): above on
    Fashion-MNIST and on digits at 50 %, 10 points below on CIFAR-10, where the network had learnt
    little.
    """

    name: ClassVar[str] = "el2n"
    source: ClassVar[str] = "Paul et al. 2021, arXiv:2107.07075"
    cost: ClassVar[str] = "opening epochs of full training, per seed"
    seeds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds < 1:
            raise InputError(f"policy 'el2n': seeds={self.seeds} must be at least 1 model")

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mean norm."""
        return (average("grad_norm", "el2n"),)

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The mean norm; a sample never observed counts as the largest."""
        return columns["el2n"]

    def plan(self, view: View) -> Plan:
        """The largest; refused where several models are asked for and nobody has trained them."""
        if self.seeds > 1 and not self.scores:
            raise InputError(
                f"policy 'el2n': seeds={self.seeds} needs that many models: start `hvdfilter "
                "train`, which trains them first, or give their score file as scores=PATH"
            )
        return super().plan(view)
