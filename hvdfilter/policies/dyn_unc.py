"""Dyn-Unc: keep the samples whose prediction moves most while the model learns.

He et al., "Large-scale Dataset Pruning with Dynamic Uncertainty", 2023 (arXiv:2306.05175): the
standard deviation of the true class's probability in a sliding window of J = 10 epochs, averaged
over all windows. Differences: the windows are those of the opening epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field, confidence_window
from hvdfilter.errors import InputError
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static


@register
@dataclass(frozen=True)
class DynUnc(Static):
    """Keep the samples whose true class's probability varies most in the opening epochs.

    keep=0.7, scores="", scale_lr=False: as of every static policy. opening=20 epochs, at least
    `window`=10, the length J of a window.

    Cost: the opening epochs of full training (none with a score file), and 4 * window bytes a
    sample on its owner. Helps at moderate pruning of large sets, for it avoids both easy samples
    and hopeless ones; hurts with few opening epochs, where all samples still move.

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): below on all
    three sets: its windows were of two epochs.
    """

    name: ClassVar[str] = "dyn-unc"
    source: ClassVar[str] = "He et al. 2023, arXiv:2306.05175"
    cost: ClassVar[str] = "opening epochs of full training"
    opening: int = 20
    window: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:
            raise InputError(f"policy 'dyn-unc': window={self.window} must be at least 2 epochs")
        if self.opening < self.window and not self.scores:
            raise InputError(
                f"policy 'dyn-unc': opening={self.opening} epochs hold no window of "
                f"{self.window}: make the opening at least as long"
            )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mean deviation over the windows."""
        return (confidence_window(self.window)[1],)

    @property
    def columns(self) -> tuple[str | Field, ...]:  # type: ignore[override]
        """Also the window itself, of this length."""
        return () if self.scores else (*super().columns, confidence_window(self.window)[0])

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The mean deviation."""
        return columns["dyn_unc"]
