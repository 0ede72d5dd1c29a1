"""Limited: the options that every policy has, put around it.

`make` puts them around a policy where one of them is given; `Limited(policy, ...)` around an object
of one's own. Which samples are kept within them stays the policy's decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hvdfilter.errors import InputError
from hvdfilter.policies import floor, fraction, guard
from hvdfilter.policies.base import Plan, View
from hvdfilter.policies.wrapping import Wrapping, keep_of, with_keep


@dataclass(frozen=True)
class Limited(Wrapping):
    """A policy within limits.

    class_floor: of each class of n_c samples, at least ceil(class_floor * n_c) are kept: those of
        `always` first, then by key, then by chance; weight 1 for what this adds. Needs labels; a
        negative label is of no class. Counts and three small allreduces an epoch.
    noise_guard: the share beta of the hardest by stored loss, over all ranks, is neither kept by
        preference (behind all others, in random order, and not `always`) nor evidence (left out of
        `View.mean` and `View.quantiles`; what a policy counts from columns itself is its own). A
        sample never observed is not guarded. One of a stale score is: without re-scoring it stays
        guarded until an epoch trains it. Helps where labels are wrong; hurts where the hard samples
        are the rare ones. Three small allreduces an epoch. With weights that make a policy
        unbiased, it no longer is. (CCS, Zheng et al. 2022, arXiv:2210.15809, drops these for good.)
    warmup: epochs at the start that train everything at weight 1.
    anneal: share of the run, at its end, that trains everything at weight 1, rounded up to whole
        epochs (0.125 as in InfoBatch, Qin et al. 2023, arXiv:2303.04947).
    fraction: schedule of the share hidden, for policies with a `keep`: "constant", "cosine" (falls
        from 1 - keep to 0), "accuracy" (1 - keep times the training accuracy),
        "steps:0.3@0,0.2@0.33" (the share hidden from a fraction of the run on).

    An option that the policy inside has itself, such as KAKURENBO's `warmup`, is, by `make`, that
    one.
    """

    class_floor: float = 0.0
    noise_guard: float = 0.0
    warmup: int = 0
    anneal: float = 0.0
    fraction: str = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("class_floor", "noise_guard", "anneal"):
            value = getattr(self, option)
            if not 0 <= value <= 1 or (option == "noise_guard" and value == 1):
                interval = "[0, 1)" if option == "noise_guard" else "[0, 1]"
                self._refuse(f"{option}={value} must be a share in {interval}")
        if self.warmup < 0:
            self._refuse(f"warmup={self.warmup} must be 0 epochs or more")
        steps = fraction.parse_steps(self.name, self.fraction)
        keep = keep_of(self.inner)
        if keep is None:
            if self.fraction != "constant":
                self._refuse(f"fraction={self.fraction!r} needs the option keep, which it has not")
            return
        if steps is not None:
            keep = 1 - max(share for _, share in steps)
        if self.class_floor > keep + 1e-9:
            self._refuse(
                f"class_floor={self.class_floor} is more than the share {keep:.6g} that is kept: "
                "lower it, or keep more"
            )

    @property
    def columns(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Those of the policy inside, and what the options look at."""
        needed: list[Any] = list(self.inner.columns)
        if self.noise_guard > 0:
            needed += ["loss", "age"]
        if self.fraction == "accuracy":
            needed += ["correct"]
        taken = {getattr(column, "name", column): column for column in reversed(needed)}
        return tuple(reversed(taken.values()))

    def trains_everything(self, epoch: int, epochs: int) -> bool:
        """Whether warm-up or annealing has `epoch` of `epochs` train all samples."""
        last = math.ceil(round(self.anneal * epochs, 6))
        return epoch < self.warmup or epoch >= epochs - last

    def plan(self, view: View) -> Plan:
        """The plan of the policy inside, within the limits."""
        if self.trains_everything(view.epoch, view.epochs):
            return view.everything()
        labels = floor.labels_of(view, self.name) if self.class_floor > 0 else None
        inner = self.inner
        if self.fraction != "constant":
            inner = with_keep(inner, 1 - self._hidden_share(view))
        hard = None
        try:
            if self.noise_guard > 0:
                hard = guard.hardest(view, self.noise_guard)
                plan = inner.plan(guard.without_evidence(view, hard))
                plan = guard.without_preference(plan, view, hard)
            else:
                plan = inner.plan(view)
        except InputError:
            if labels is not None:
                view.total(np.array([1]))  # the others are on their way to the floor
            raise
        if labels is None:
            return plan
        if view.total(np.array([0]))[0]:
            return view.everything()  # another rank has refused, and says so
        return floor.with_floor(plan, view, labels, self.class_floor)

    def _hidden_share(self, view: View) -> float:
        keep, accuracy = keep_of(self.inner), 0.0
        assert keep is not None  # checked when this was made
        if self.fraction == "accuracy":
            correct = np.array([np.count_nonzero(view.column("correct"))], np.int64)
            accuracy = int(view.total(correct)[0]) / view.num_samples
        return fraction.hidden_share(
            self.name, self.fraction, 1 - keep, view.epoch, view.epochs, accuracy
        )

    def _refuse(self, reason: str) -> None:
        raise InputError(f"policy {self.name!r}: {reason}")


#: The common options by name, with their defaults.
COMMON: dict[str, Any] = {
    option.name: option.default for option in fields(Limited) if option.name != "inner"
}
