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
from hvdfilter.errors import InputError
from hvdfilter.policies import Policy


@dataclass(frozen=True)
class Arguments:
    """The arguments of `Filter`, with the policy made and the labels as an array."""

    num_samples: int
    policy: Policy
    epochs: int
    seed: int
    labels: NDArray[Any] | None = None
    exchange: str = "float32"

    def identity(self) -> dict[str, Any]:
        """What must be equal on all ranks, and in a run that goes on from a saved state."""
        return {
            "num_samples": self.num_samples,
            "policy": repr(self.policy),
            "epochs": self.epochs,
            "seed": self.seed,
        }

    def check(self, collective: Collective) -> None:
        """Collective. Raises `InputError`, on every rank, for what one of them cannot be given."""
        collective.share_error(self._fault(collective.size))
        # Not a part of the identity: a run may go on with another precision.
        told = self.identity() | {"exchange": self.exchange}
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
        return precision.fault(self.exchange)
