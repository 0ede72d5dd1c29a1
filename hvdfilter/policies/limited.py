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
from hvdfilter.policies import floor, guard, share_schedule
from hvdfilter.policies.base import Plan, Policy, View
from hvdfilter.policies.minority import CAP, with_repeats
from hvdfilter.policies.wrapping import Wrapping, keep_of, with_keep


@dataclass(frozen=True)
class Limited(Wrapping):
    """A policy within limits.

    class_floor: of each class of n_c samples, at least ceil(class_floor * n_c) are kept: those of
        `always` first, then by key, then by chance; weight 1 for what this adds. Needs labels; a
        negative label is of no class. Counts and three small allreduces an epoch.
    minority: kept samples of a class with fewer draws than this share of the largest class's are
        drawn more often, evenly, by chance where whole draws don't go round, up to that share, and
        at most `minority_cap` times as often. In every epoch, warm-up and annealing among them;
        weights as they are. Needs labels. Three small allreduces an epoch, and three of 40 KiB for
        each rare class.
    minority_cap: see there.
    noise_guard: the share beta of the hardest by stored loss, over all ranks, is neither evidence
        (the policy sees them as never observed) nor kept by preference (behind all others, in
        random order; by a coin, as often as the others, where the policy throws coins). A sample
        never observed is not guarded. One of a stale score is: without re-scoring it stays guarded
        until an epoch trains it. Policies that look at no score prefer none: nothing changes.
        Helps where labels are wrong; hurts where the hard samples are the rare ones. Four small
        allreduces an epoch. With weights that make a policy unbiased, it no longer is. (CCS, Zheng
        et al. 2022, arXiv:2210.15809, drops these for good.)
    warmup: epochs at the start that train everything at weight 1.
    anneal: share of the run, at its end, that trains everything at weight 1, rounded up to whole
        epochs (0.125 as in InfoBatch, Qin et al. 2023, arXiv:2303.04947).
    fraction: schedule of the share hidden, for policies with a `keep` that may change: "constant",
        "cosine" (falls from 1 - keep to 0), "accuracy" (1 - keep times the training accuracy),
        "steps:0.3@0,0.2@0.33" (the share hidden from a fraction of the run on).

    An option that the policy inside has itself, such as KAKURENBO's `warmup`, is, by `make`, that
    one.
    """

    class_floor: float = 0.0
    minority: float = 0.0
    minority_cap: int = CAP
    noise_guard: float = 0.0
    warmup: int = 0
    anneal: float = 0.0
    fraction: str = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("class_floor", "minority", "noise_guard", "anneal"):
            value = getattr(self, option)
            if not 0 <= value <= 1 or (option == "noise_guard" and value == 1):
                interval = "[0, 1)" if option == "noise_guard" else "[0, 1]"
                self._refuse(f"{option}={value} must be a share in {interval}")
        if self.minority_cap < 1:
            self._refuse(f"minority_cap={self.minority_cap} must be 1 or more")
        if self.warmup < 0:
            self._refuse(f"warmup={self.warmup} must be 0 epochs or more")
        steps = share_schedule.parse_steps(self.name, self.fraction)
        keep = keep_of(self.inner)
        if keep is None:
            if self.fraction != "constant":
                self._refuse(f"fraction={self.fraction!r} needs the option keep, which it has not")
            return
        if self.inner.one_keep and self.fraction != "constant":
            self._refuse(f"fraction={self.fraction!r} is nothing for it, whose keep never changes")
        if steps is not None:
            keep = 1 - max(share for _, share in steps)
        if 0 < keep < self.class_floor - 1e-9:  # a keep of 0 is no share: the policy decides
            self._refuse(
                f"class_floor={self.class_floor} is more than the share {keep:.6g} that is kept: "
                "lower it, or keep more"
            )

    @property
    def columns(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Those of the policy inside, and what the options look at."""
        needed: list[Any] = list(self.inner.columns)
        if self._guards:
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
        counting = [name for name in ("class_floor", "minority") if getattr(self, name) > 0]
        labels = floor.labels_of(view, self.name, counting[0]) if counting else None
        if self.trains_everything(view.epoch, view.epochs):
            plan = view.everything()
        else:
            inner = self.inner
            if self.fraction != "constant":
                inner = with_keep(inner, 1 - self._hidden_share(view))
            try:
                plan = self._guarded(inner, view) if self._guards else inner.plan(view)
            except InputError:
                if labels is not None:
                    view.total(np.array([1]))  # the others are on their way to count classes
                raise
            if labels is None:
                return plan
            if view.total(np.array([0]))[0]:
                return view.everything()  # another rank has refused, and says so
            if self.class_floor > 0:
                plan = floor.with_floor(plan, view, labels, self.class_floor)
        if labels is not None and self.minority > 0:
            plan = with_repeats(plan, view, labels, self.minority, self.minority_cap)
        return plan

    @property
    def _guards(self) -> bool:
        # A policy that looks at no score prefers none.
        return self.noise_guard > 0 and bool(self.inner.columns)

    def _guarded(self, inner: Policy, view: View) -> Plan:
        hard = guard.hardest(view, self.noise_guard)
        plan = None
        try:
            plan = inner.plan(guard.without_evidence(view, hard, self.columns))
        finally:  # a rank that refuses must not leave the others waiting
            counted = view.total(guard.count_kept(plan, hard))
        return guard.without_preference(plan, view, hard, counted)

    def _hidden_share(self, view: View) -> float:
        keep, accuracy = keep_of(self.inner), 0.0
        assert keep is not None  # checked when this was made
        if self.fraction == "accuracy":
            correct = np.array([np.count_nonzero(view.column("correct"))], np.int64)
            accuracy = int(view.total(correct)[0]) / view.num_samples
        return share_schedule.hidden_share(
            self.name, self.fraction, 1 - keep, view.epoch, view.epochs, accuracy
        )

    def _refuse(self, reason: str) -> None:
        raise InputError(f"policy {self.name!r}: {reason}")


#: The common options by name, with their defaults.
COMMON: dict[str, Any] = {
    option.name: option.default for option in fields(Limited) if option.name != "inner"
}
