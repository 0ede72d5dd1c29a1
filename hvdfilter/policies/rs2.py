"""RS2: a fresh random share each epoch, no sample twice before every other was used.

Okanovic et al., "Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning", ICLR
2024, arXiv:2305.18424, in its version without replacement. Random permutations of the set are laid
end to end, and each epoch takes the next stretch of keep * N places, so that after any number of
epochs no two samples were drawn a number of times that differs by more than one.

Different from the public code: where a permutation ends within an epoch, that code fills the epoch
with samples from the head of the same permutation, which are then drawn twice as often; here the
epoch goes on with the next permutation, and a sample that stands at the end of one and at the head
of the next is drawn twice in that epoch (`repeats`). Every epoch has the same number of draws.

The paper shortens the learning rate's schedule to the epochs there are, which is what a schedule by
the step does, and does not scale the rate. No score is needed, so none is stale.

Cost: none over the ranks. A strong baseline: at equal steps, hold every other policy against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hvdfilter.agreement.permutation import Permutation
from hvdfilter.policies.base import Plan, Policy, View, check_keep
from hvdfilter.policies.registry import register
from hvdfilter.policies.uniform import budget

_STREAM = 0x525332  # apart from the sampler's permutations


@register
@dataclass(frozen=True)
class RS2(Policy):
    """Train a fresh random share each epoch, without replacement until the set is used up.

    keep: draws an epoch, as a fraction of the samples. scale_lr: train at lr / (1 - F*).

    Against `random` at equal steps, in short runs on subsets (benchmarks/results): undecided, as
    `random` itself would be.
    """

    name: ClassVar[str] = "rs2"
    source: ClassVar[str] = "Okanovic et al. 2024, arXiv:2305.18424"
    cost: ClassVar[str] = "nothing beside the mask"
    one_keep: ClassVar[bool] = True  # a stretch begins where the last one ended
    keep: float = 0.7
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)

    def plan(self, view: View) -> Plan:
        """The stretch of this epoch, in one permutation or the end of one and the head of more."""
        n, draws = view.num_samples, budget(self.keep, view.num_samples)
        first = view.epoch * draws
        rounds = range(first // n, (first + draws - 1) // n + 1)
        repeats = np.zeros(view.stop - view.start, np.int64)
        for number in rounds:
            place = Permutation(n, view.seed, _STREAM, number)(view.ids) + number * n
            repeats += (place >= first) & (place < first + draws)
        kept = repeats > 0
        nothing = np.zeros(kept.size, np.float32)
        return Plan(nothing, 0, always=kept, repeats=None if len(rounds) == 1 else repeats)
