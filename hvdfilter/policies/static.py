"""What the static policies share: a choice made once, from a score file or an opening phase.

It never looks at a score again after the opening epochs: its fields are frozen then (`first`), so
neither training on nor resuming moves the choice. How samples are ranked is each policy's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.fields import Field, first
from hvdfilter.errors import InputError
from hvdfilter.policies import score_file
from hvdfilter.policies.base import Plan, Policy, View, check_keep
from hvdfilter.policies.uniform import budget

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Static(Policy):
    """Keep one share of the samples, chosen once.

    keep: fraction kept. scores: path of a score file; without one, everything is kept and observed
    for `opening` epochs, and the choice is then made from what was seen in them. scale_lr: train at
    lr / (1 - F*) once samples are hidden.

    A sample that was observed in fewer than `opening` epochs (one of them ended early) is kept,
    beyond the budget, until it was observed as often as the others.

    Cost: O(N / P) memory and time; one selection an epoch. With a score file nothing is exchanged;
    without, observations travel in the later epochs too, where they change nothing.
    """

    keep: float = 0.7
    scores: str = ""
    opening: int = 10
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check_keep(self.name, self.keep)
        if self.opening < 1:
            raise InputError(
                f"policy {self.name!r}: opening={self.opening} must be at least 1 epoch, for "
                "scores made at initialisation do not reproduce"
            )

    @property
    @abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """What it ranks by; a score file has columns of the same names."""

    @abstractmethod
    def importance(self, columns: Columns) -> NDArray[np.float32]:
        """The key of each sample, float32 [n], larger is kept; from `fields`, by name."""

    def choose(self, view: View, key: NDArray[np.float32]) -> Plan:
        """The plan from the keys of this rank's samples; by default, the largest are kept."""
        return Plan(key, budget(self.keep, view.num_samples))

    @property
    def columns(self) -> tuple[str | Field, ...]:  # type: ignore[override]
        """The fields, of the opening epochs alone; none where a score file holds them."""
        if self.scores:
            return ()
        return (*(first(self.opening, field) for field in self.fields), "observations")

    def plan(self, view: View) -> Plan:
        """Everything in the opening epochs, then always the same choice."""
        if self.scores:
            found = file_columns(view, self.scores, [field.name for field in self.fields])
            return view.everything() if found is None else self.choose(view, self.importance(found))
        if view.epoch < self.opening:
            return view.everything()
        seen = {field.name: view.column(field.name) for field in self.fields}
        unsure = view.column("observations") < self.opening
        return replace(self.choose(view, self.importance(seen)), always=unsure)


def file_columns(view: View, path: str, names: list[str]) -> Columns | None:
    """Collective. The fields `names` of this rank's samples from a score file.

    A rank that finds something wrong with its part raises `InputError`. The others then get None,
    and are told the reason by the agreement: a plan that goes on asking the other ranks for counts
    must know that one of them will not answer.
    """
    found = error = None
    try:
        found = score_file.read(path, names, view.start, view.stop, view.num_samples, view.labels)
    except InputError as refused:
        error = refused
    failed = view.total(np.array([error is not None], np.int64))[0]
    if error is not None:
        raise error
    return None if failed else found
