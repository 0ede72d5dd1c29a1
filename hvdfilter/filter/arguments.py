"""What a Filter is given: checked once, and the same on every rank.

It is also what a saved run is recognised by.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import Collective, precision
from hvdfilter.agreement.fields import Field
from hvdfilter.agreement.history import HISTORY, LABEL
from hvdfilter.errors import InputError
from hvdfilter.policies import Policy


def counted(labels: Any) -> NDArray[Any]:
    """Labels as an array that can be counted: NumPy before 2 counts no uint64.

    Raises `InputError` for those that no int64 holds.
    """
    given = np.asarray(labels)
    if given.dtype.kind != "u" or given.dtype.itemsize < 8:
        return given
    if (most := int(given.max(initial=0))) > np.iinfo(np.int64).max:
        raise InputError(f"labels go up to {most}: give integers that count the classes from 0")
    return given.astype(np.int64)


@dataclass(frozen=True)
class Arguments:
    """The arguments of `Filter`, with the policy made and the labels as an array."""

    num_samples: int
    policy: Policy
    epochs: int
    seed: int
    labels: NDArray[Any] | None = None
    exchange: str = "float32"
    history: bool = False

    @property
    def columns(self) -> tuple[str | Field, ...]:
        """What the score book is to hold; where two have one name, the policy's."""
        if not self.history:
            return tuple(self.policy.columns)
        label = () if self.classes is None else (LABEL,)
        return (*HISTORY, *label, *self.policy.columns)

    @property
    def classes(self) -> NDArray[Any] | None:
        """The labels where they are classes, integers from 0 on; None where not."""
        labels = self.labels
        if labels is None or labels.dtype.kind not in "iu" or not 0 <= labels.min():
            return None
        return labels if labels.max() < np.iinfo(LABEL.dtype).max else None

    def identity(self) -> dict[str, Any]:
        """What must be equal on all ranks, and in a run that goes on from a saved state."""
        return {
            "num_samples": self.num_samples,
            "policy": repr(self.policy),
            "epochs": self.epochs,
            "seed": self.seed,
        }

    def epoch(self, epoch: Any) -> tuple[int, InputError | None]:
        """The epoch to begin, and what is wrong with it."""
        if not isinstance(epoch, int):
            return -1, InputError(f"epoch must be an integer, not {epoch!r}")
        if not 0 <= epoch < self.epochs:
            return epoch, InputError(
                f"epoch {epoch} is none of the {self.epochs} that Filter was given"
            )
        return epoch, None

    def check(self, collective: Collective) -> None:
        """Collective. Raises `InputError`, on every rank, for what one of them cannot be given."""
        collective.share_error(self._fault(collective.size))
        # Not a part of the identity: a run may go on with another precision.
        told = self.identity() | {"exchange": self.exchange, "history": self.history}
        if self.labels is not None:
            told["labels"] = f"{self.labels.dtype} {sha256(self.labels.tobytes()).hexdigest()[:12]}"
        mine = ", ".join(f"{name}={value}" for name, value in told.items())
        first = collective.broadcast_bytes(mine.encode()).decode()
        error = None
        if mine != first:
            error = InputError(f"Filter was given {mine} here but {first} on rank 0")
        collective.share_error(error)

    def _fault(self, ranks: int) -> InputError | None:
        for name in ("num_samples", "epochs", "seed"):
            if not isinstance(getattr(self, name), int | np.integer):
                return InputError(
                    f"{name} must be an integer, not {type(getattr(self, name)).__name__}: "
                    "hf.Filter(len(train_set), epochs=...)"
                )
        if self.num_samples < ranks:
            return InputError(
                f"{self.num_samples} samples cannot be shared by {ranks} ranks: start "
                "fewer ranks or train on more samples"
            )
        if self.epochs < 1:
            return InputError(f"epochs={self.epochs} must be at least 1")
        if self.labels is not None and self.labels.shape != (self.num_samples,):
            return InputError(
                f"labels has shape {self.labels.shape}, one label for each of the "
                f"{self.num_samples} samples is needed"
            )
        if not isinstance(self.history, bool):
            return InputError(f"history must be True or False, not {self.history!r}")
        return precision.fault(self.exchange)
