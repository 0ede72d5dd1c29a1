"""A forward-only pass over samples that are not trained on, so that their scores stay fresh.

Nothing here communicates, and nothing of the model is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from hvdfilter.errors import InputError

# What a user's function makes of a batch: (ids, logits, labels), or (ids, losses) with a mapping of
# more scores behind them or none.
ForwardStep = Callable[[Any], tuple[Any, ...]]


class Notes(Protocol):
    """Who is told what a batch gave: a Filter's `Observer`, or another in its place."""

    def score(self, logits: Tensor, labels: Tensor, ids: Any) -> Any:
        """Logits and labels."""

    def take(self, losses: Tensor, ids: Any, scores: Mapping[str, Any]) -> None:
        """Losses, and further scores by name."""


def rescore(
    model: torch.nn.Module | None,
    batches: Iterable[Any],
    step: ForwardStep | None,
    observer: Notes,
    device: torch.device,
) -> Exception | None:
    """Have `observer` note what `step`, or else the model, gives for every batch.

    Without a step batches are (ids, x, y), and y is what `model(x)` is scored by. The model runs in
    eval mode, so that BatchNorm statistics stay those of training, and each part of it is put back
    into the mode it was in; it is None where the step has its own. What goes wrong ends the pass:
    the error is returned, for the other ranks have a pass of their own to finish before all can
    raise it.
    """
    error: Exception | None = None
    modes = [] if model is None else [(part, part.training) for part in model.modules()]
    if model is not None:
        model.eval()
    with torch.no_grad():
        try:
            for batch in batches:
                _note(_forward(model, batch, device) if step is None else step(batch), observer)
        except Exception as refused:
            error = refused
        finally:
            for part, training in modes:
                part.training = training
        if device.type == "cuda":
            torch.cuda.synchronize()  # so that the pass pays for its own kernels
    return error


def _forward(model: torch.nn.Module | None, batch: Any, device: torch.device) -> tuple[Any, ...]:
    if model is None:
        raise InputError("rescore needs the model, or step=, a function of a batch that scores it.")
    if not isinstance(batch, (tuple, list)) or len(batch) != 3:
        raise InputError(
            f"rescore: a batch is {type(batch).__name__}, not (ids, x, y); pass step=, a function "
            "that returns (ids, losses) or (ids, logits, labels) of a batch."
        )
    ids, x, y = batch
    return ids, model(x.to(device)), y.to(device)


def _note(found: tuple[Any, ...], observer: Notes) -> None:
    match found:
        case (ids, losses):
            observer.take(losses, ids, {})
        case (ids, losses, Mapping() as scores):
            observer.take(losses, ids, scores)
        case (ids, logits, labels):
            observer.score(logits, labels, ids)
        case _:
            raise InputError(
                "rescore: step must return (ids, losses), (ids, losses, scores) or "
                f"(ids, logits, labels), not {type(found).__name__}."
            )
