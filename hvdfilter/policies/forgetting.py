"""Forgetting: keep the samples that were learnt and lost again most often, or never learnt.

Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR
2019 (arXiv:1812.05159): an event is a sample that was right at its last observation and is wrong at
this one; one that was never right counts as infinitely often forgotten. Differences: counts are of
the opening epochs, where the authors count over a whole run of 200 (a score file of such a run
gives theirs); ties, of which counts have many, are kept in order of id, not of a sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import FIELDS, Field
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static


def forgetting_counts(columns: Columns) -> NDArray[np.float32]:
    """How often each sample was forgotten, +inf for those never learnt (or never observed)."""
    counts = columns["forgetting"].astype(np.float32)
    return np.where(columns["learnt"].astype(bool), counts, np.float32(np.inf))


@register
@dataclass(frozen=True)
class Forgetting(Static):
    """Keep the samples most often forgotten in the opening epochs; those never learnt first.

    keep=0.7, scores="", scale_lr=False: as of every static policy. opening=20 epochs: fewer leave
    too many samples never learnt, or never forgotten, and so untold apart.

    Cost: the opening epochs of full training (none with a score file). Helps on sets with many easy
    samples, a third of CIFAR-10 among them; hurts where few are forgotten or labels are noisy.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): above on digits
    at 50 % and Fashion-MNIST at 30 %, 7 to 10 points below on CIFAR-10, where the network had
    learnt little.
    """

    name: ClassVar[str] = "forgetting"
    source: ClassVar[str] = "Toneva et al. 2019, arXiv:1812.05159"
    cost: ClassVar[str] = "opening epochs of full training"
    opening: int = 20

    @property
    def fields(self) -> tuple[Field, ...]:
        """Falls from right to wrong, and whether ever right."""
        return FIELDS["forgetting"], FIELDS["learnt"]

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The count, or infinity."""
        return forgetting_counts(columns)
