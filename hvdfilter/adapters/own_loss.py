"""What a model's labels mean, told by the loss that the model computes of them itself.

Its name does not tell: it may be a subclass, wrapped, or written by anybody. So the first batch is
held against the model's own loss: plain cross entropy, that of labels shifted by one, or another
loss, which is refused. It knows no library's classes and trains nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hvdfilter.agreement import Collective
from hvdfilter.errors import InputError, on_all_ranks
from hvdfilter.filter.given import to_classes

# Two ways to sum up float32 losses of one batch differ by less, and an aux_loss by more.
_CLOSE = 2e-5
# By what a configuration calls the share of a mixture's aux_loss in the loss.
_SHARES = ("router_aux_loss_coef", "aux_loss_coef")
_SAY = "say FilteredTrainer(..., shift_labels=True) or shift_labels=False"
_OWN = "make the loss in sample_loss(logits, labels, ids) of a class derived from FilteredTrainer"


class Outputs(NamedTuple):
    """What a model gave: logits, its own loss where it computed one, and what it adds to it."""

    logits: Tensor
    loss: Tensor | None
    extra: Tensor | None


def read(given: Any, network: Any) -> Outputs:
    """The parts of a model's outputs; `InputError` where they hold no logits.

    network: whose `config` says how much of its `aux_loss` a mixture of experts adds to its loss.
    """
    if isinstance(given, Mapping):
        logits, loss, extra = given.get("logits"), given.get("loss"), given.get("aux_loss")
    else:
        parts = [given] if isinstance(given, Tensor) else list(given)
        loss = parts.pop(0) if len(parts) > 1 and parts[0].dim() == 0 else None
        logits, extra = parts[0], None
    if not isinstance(logits, Tensor):
        raise InputError(
            "FilteredTrainer needs the logits, which the model's outputs do not hold (a fused "
            "loss, as of use_liger_kernel, leaves none): let it return them, or train by a loop of "
            "your own"
        )
    if extra is not None:
        extra = extra * _share(network)
    return Outputs(logits, loss, extra)


def shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, T, V] beside the labels of each token's successor."""
    return logits[:, :-1], labels[:, 1:]


class Meaning:
    """Whether labels are to be shifted; None until a first batch has told.

    said: what the user said, or None. free: the loss is the user's own, and the labels may be
    anything: the model is not asked.
    """

    def __init__(self, collective: Collective, said: bool | None, free: bool) -> None:
        self._collective, self._said, self._free = collective, said, free
        self.shift: bool | None = None

    def asks(self, network: Any) -> bool:
        """Whether the next batch needs the loss that the model computes itself."""
        if self.shift is not None or self._free:
            return False
        parameters = inspect.signature(network.forward).parameters.values()
        return any(p.name == "labels" or p.kind is p.VAR_KEYWORD for p in parameters)

    def learn(self, given: Any, labels: Any, network: Any) -> None:
        """Collective. Look at a first batch; all raise `InputError` where it does not tell."""
        fits, error = np.zeros(2, np.int64), None
        try:
            fits[:] = self._fits(read(given, network), labels)
        except InputError as refused:
            error = refused
        self._collective.share_error(error)
        plain, shift = self._collective.allreduce(fits, "min").tolist()
        if plain == shift:
            raise on_all_ranks(
                "whether the labels are to be shifted by one cannot be told from the model's loss "
                f"of the first batch: {_SAY}"
            )
        self.shift = bool(shift)

    def _fits(self, outputs: Outputs, labels: Any) -> tuple[bool, bool]:
        """Whether plain and shifted labels are right, as far as this rank's batch tells."""
        logits, own, extra = outputs
        one = isinstance(labels, Tensor)
        tokens = one and logits.dim() == 3 and labels.shape == logits.shape[:2]
        if not one and not self._free:
            raise InputError(
                "FilteredTrainer needs a batch's 'labels', one tensor, not "
                f"{type(labels).__name__}: {_OWN}"
            )
        if self._said and not tokens:
            raise InputError(
                f"shift_labels=True is for tokens, logits [B, T, V] and labels [B, T], and here "
                f"logits are {list(logits.shape)}: leave it out"
            )
        sides = [False, True] if tokens and self._said is None else [bool(self._said)]
        if self._free or own is None:
            if len(sides) == 2:
                raise InputError(
                    f"nothing tells whether labels of tokens are to be shifted: {_SAY}"
                )
            if not self._free and labels.is_floating_point():
                raise InputError(
                    f"the model computes no loss, so what its soft labels mean is unknown: {_OWN}"
                )
            return False in sides, True in sides
        own = own.detach().mean()
        added = 0.0 if extra is None else extra.detach()
        losses = {side: _cross_entropy(side, logits, labels) + added for side in sides}
        fits = [side in losses and _equal(losses[side], own) for side in (False, True)]
        if not any(fits):
            told = " or ".join(
                f"{loss.item():.6g}{' with labels shifted' * side}" for side, loss in losses.items()
            )
            raise InputError(
                f"the model's own loss of the first batch is {own.item():.6g}, and the cross "
                f"entropy of its logits and labels {told}, so it trains by another loss: {_OWN}"
            )
        return fits[0], fits[1]


def _equal(loss: Tensor, own: Tensor) -> bool:
    close = max(_CLOSE, 2 * torch.finfo(own.dtype).eps)
    return torch.allclose(loss, own.to(loss), rtol=close, atol=close / 20, equal_nan=True)


@torch.no_grad()
def _cross_entropy(shift: bool, logits: Tensor, labels: Tensor) -> Tensor:
    if shift:
        logits, labels = shifted(logits, labels)
    rows, targets, _ = to_classes(logits, labels)
    return F.cross_entropy(rows.float(), targets if targets.is_floating_point() else targets.long())


def _share(network: Any) -> float:
    config = getattr(network, "config", None)
    for holder in (config, getattr(config, "text_config", None)):
        for name in _SHARES:
            if (share := getattr(holder, name, None)) is not None:
                return float(share)
    return 1.0
