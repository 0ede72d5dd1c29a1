"""RHO: keep the samples whose loss can still be reduced.

Mindermann et al., "Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet
Learnt" (RHO-LOSS), ICML 2022 (arXiv:2206.07137): the loss minus the irreducible loss, that of a
small model trained on a hold-out set. Differences: the authors take the best tenth of a large batch
with an extra forward pass each step; here the losses of the last epoch choose over the whole set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hvdfilter.errors import InputError
from hvdfilter.policies.base import Plan, Policy, View, check_keep
from hvdfilter.policies.registry import register
from hvdfilter.policies.static import file_columns
from hvdfilter.policies.uniform import budget


@register
@dataclass(frozen=True)
class Rho(Policy):
    """Keep the largest differences between the loss and what a hold-out model leaves of it.

    keep=0.7: fraction kept at least. scores: path of a score file whose `loss` is the hold-out
    model's, as `hvdfilter score HOLDOUT_RUN --data DATA` makes it; there is none by default, for
    nothing in the run itself can replace it.

    A sample that the last epoch did not look at (never seen, or hidden and not re-scored) is kept
    too, so the first epoch trains everything. A sample whose irreducible loss is infinite comes
    last.

    Cost: the hold-out model once, and a forward pass over the hidden samples an epoch. Helps with
    noisy labels and many redundant samples; hurts where the hold-out model is poor.
    """

    name: ClassVar[str] = "rho"
    source: ClassVar[str] = "Mindermann et al. 2022, arXiv:2206.07137"
    cost: ClassVar[str] = "a hold-out model once, a forward pass over the hidden"
    columns: ClassVar[tuple[str, ...]] = ("loss", "age")
    rescores: ClassVar[bool] = True
    keep: float = 0.7
    scores: str = ""

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if not self.scores:
            raise InputError(
                "policy 'rho' needs the losses of a hold-out model: make them with `hvdfilter "
                "score HOLDOUT_RUN --data DATA` and give the file as scores=PATH"
            )

    def plan(self, view: View) -> Plan:
        """The largest reducible losses within the budget, and what nothing fresh is known of."""
        found = file_columns(view, self.scores, ["loss"])
        if found is None:
            return view.everything()
        hopeless = np.isinf(found["loss"])
        key = view.column("loss") - np.where(hopeless, np.float32(0), found["loss"])
        key[hopeless] = -np.inf
        return Plan(key, budget(self.keep, view.num_samples), always=view.column("age") != 1)
