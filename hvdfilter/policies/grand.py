"""GraNd: keep the samples with the largest gradient of the whole model early in training.

Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021 (arXiv:2107.07075): the norm
of a sample's loss gradient over all parameters, the mean over models. Differences: the mean is over
the opening epochs of the run; never at initialisation, where the ranking was later found not to
reproduce (Kirsch, "Does 'Deep Learning on a Data Diet' reproduce?", 2023, arXiv:2303.14753).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field, average
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import Columns, Static


@register
@dataclass(frozen=True)
class GraNd(Static):
    """Keep the largest gradients of the whole model, by their mean norm over the opening epochs.

    keep=0.7, scores="", opening=10, scale_lr=False: as of every static policy.

    The norms are those of `hf.GradNorm(model)`, given after the backward as filt.observe(ids,
    grad_norm=...); or field `grand` of a score file. The norm that filt.loss notes by itself is
    another one, that of the logits (policy "el2n"), and is not taken.

    Cost: what `hf.GradNorm` adds to each step of the opening epochs (none with a score file). Helps
    and hurts where "el2n" does, whose ranking is close and costs nothing.
    """

    name: ClassVar[str] = "grand"
    source: ClassVar[str] = "Paul et al. 2021, arXiv:2107.07075"
    cost: ClassVar[str] = "opening epochs of full training with GradNorm"
    own_scores: ClassVar[Mapping[str, str]] = {"grad_norm": "hf.GradNorm(model)"}

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mean norm."""
        return (average("grad_norm", "grand"),)

    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The mean norm; a sample never observed counts as the largest."""
        return columns["grand"]
