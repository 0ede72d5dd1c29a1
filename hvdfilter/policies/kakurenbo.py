"""KAKURENBO: hide the samples that are learnt, look at them again before deciding once more.

Nguyen et al., "KAKURENBO: Adaptively Hiding Samples in Deep Neural Network Training", NeurIPS
2023. Differences from the paper: none intended. The authors' scripts take the confidence over the
wrong axis, scale the rate by the cap and re-score in train mode; here it is as the paper says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, Policy, View, check_keep, share_of
from hvdfilter.policies.registry import register

# The cap falls in steps at these fractions of the run (epochs 30, 60 and 80 of 90 in the paper).
BREAKS = ((8 / 9, 0.4), (2 / 3, 0.6), (1 / 3, 0.8), (0.0, 1.0))


@register
@dataclass(frozen=True)
class Kakurenbo(Policy):
    """Hide samples of low loss that are predicted correctly and confidently.

    keep: fraction never hidden, 1 - F in the paper. tau: confidence from which a correct sample
    may be hidden. warmup: epochs that hide nothing. scale_lr: train at lr / (1 - F*).

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): above on
    Fashion-MNIST at 30 %, undecided elsewhere.
    """

    name: ClassVar[str] = "kakurenbo"
    source: ClassVar[str] = "Nguyen et al. 2023, arXiv:2310.10102"
    cost: ClassVar[str] = "a forward pass over the hidden samples"
    columns: ClassVar[tuple[str, ...]] = ("loss", "confidence", "correct", "age")
    rescores: ClassVar[bool] = True
    keep: float = 0.7
    tau: float = 0.7
    warmup: int = 5
    scale_lr: bool = True

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if not 0 <= self.tau <= 1:
            raise InputError(f"policy 'kakurenbo': tau={self.tau} must be a confidence in [0, 1]")
        if self.warmup < 0:
            raise InputError(f"policy 'kakurenbo': warmup={self.warmup} must be 0 epochs or more")

    def cap(self, epoch: int, epochs: int) -> float:
        """F_e, the largest fraction that may be hidden in `epoch` of `epochs`."""
        if epoch < self.warmup:
            return 0.0
        share = next(share for start, share in BREAKS if epoch >= start * epochs)
        return (1 - self.keep) * share

    def plan(self, view: View) -> Plan:
        """Candidates of lowest loss; those not learnt, or of a stale score, are moved back."""
        share = share_of(self.cap(view.epoch, view.epochs), view.num_samples)
        candidates = min(share, view.num_samples - 1)
        if candidates == 0:
            return view.everything()
        learnt = view.column("correct") & (view.column("confidence") >= self.tau)
        # A score from before the last epoch (hidden and not re-scored) is no evidence: moved back.
        fresh = view.column("age") == 1
        return Plan(
            key=view.column("loss"), keep=view.num_samples - candidates, always=~(learnt & fresh)
        )
