"""Instance-dependent early stopping: hide a sample while its loss has stopped bending.

Yuan et al., "Instance-dependent Early Stopping", ICLR 2025, arXiv:2502.07547. A sample is mastered
while the moving average of |L_e - 2 L_{e-1} + L_{e-2}|, the second difference of its loss, is below
a threshold: 1e-3 in the paper, twice that for 100 classes. It comes back when its loss bends again.

Different from the public code: the average is an exponential one at rate 0.5 (the field
`loss_curvature`), which weighs the last three as that code's window does but needs one value a
sample instead of the whole history. Hidden samples get a forward-only pass in eval mode at the end
of the epoch, as there, without changing BatchNorm's statistics. A sample with fewer than three
observations, or one that the last epoch did not look at, is kept.

Cost: none over the ranks but the mask; the pass over what is hidden. It helps in long runs with a
learning rate that falls smoothly. With strong augmentation losses never settle and little is
hidden; a sample stuck at a high loss counts as mastered too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, Policy, View, check_fraction
from hvdfilter.policies.registry import register
from hvdfilter.policies.uniform import budget


@register
@dataclass(frozen=True)
class IES(Policy):
    """Hide samples whose loss changes at a constant rate or not at all.

    threshold: of the averaged second difference of the loss, below which a sample is hidden. keep:
    fraction kept at least, those of the largest difference; one sample is always kept. scale_lr:
    train at lr / (1 - F*).

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): nothing, for in
    such short runs no loss settles and nothing was hidden.
    """

    name: ClassVar[str] = "ies"
    source: ClassVar[str] = "Yuan et al. 2025, arXiv:2502.07547"
    cost: ClassVar[str] = "a forward pass over the hidden samples"
    columns: ClassVar[tuple[str, ...]] = ("loss_curvature", "age")
    rescores: ClassVar[bool] = True
    threshold: float = 1e-3
    keep: float = 0.0
    scale_lr: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < math.inf:
            raise InputError(
                f"policy 'ies': threshold={self.threshold} must be a finite number, 0 or more"
            )
        check_fraction(self.name, "keep", self.keep)

    def plan(self, view: View) -> Plan:
        """Whatever still bends, or nothing fresh is known of."""
        bend = view.column("loss_curvature")  # +inf before the third observation
        fresh = view.column("age") == 1
        mastered = (bend.astype("f8") < self.threshold) & fresh
        return Plan(bend, budget(self.keep, view.num_samples), always=~mastered)
