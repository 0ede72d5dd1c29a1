"""What a training loop hands to a Filter at a step: checked, and refused in one sentence.

Shapes, dtypes and names; values are looked at where they are scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from hvdfilter.agreement.fields import OBSERVABLE
from hvdfilter.errors import InputError
from hvdfilter.scoring.layout import to_rows

# What `update` takes beside the losses.
_NAMES = tuple(name for name in OBSERVABLE if name != "loss")


def to_classes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Rows of logits, their labels, and rows a sample; what is no classification is refused."""
    if not (isinstance(logits, Tensor) and isinstance(labels, Tensor)):
        raise InputError(
            "logits and labels must be tensors, not "
            f"{type(logits).__name__} and {type(labels).__name__}."
        )
    regression = labels.is_floating_point() and labels.shape != logits.shape
    if logits.dim() >= 2 and not regression:
        rows, targets, each = to_rows(logits, labels)
        if rows.shape[1] > 1:
            return rows, targets, each
    raise InputError(
        f"labels: {labels.dtype} {list(labels.shape)} beside logits of {list(logits.shape)} "
        "are no choice between classes; pass the losses of each sample to filt.update."
    )


def weigh_rows(weight: Tensor | None, logits: Tensor, each: int) -> Tensor | None:
    """The weight of each sample, [B], as that of each of its rows."""
    check_constant("weight", weight)
    if weight is None or each == 1:
        return weight
    if weight.shape != logits.shape[:1]:
        raise InputError(
            f"weight: expected [{logits.shape[0]}], one for each sample, got {list(weight.shape)}."
        )
    return weight.repeat_interleave(each)


def check_constant(name: str, value: object) -> None:
    """`value` is a tensor or None."""
    if value is not None and not isinstance(value, Tensor):
        raise InputError(f"{name}: expected a tensor, not {type(value).__name__}.")


def check_losses(losses: Tensor, weight: Tensor | None) -> None:
    """`losses` are floating values [B], `weight` constants [B] or None."""
    if not isinstance(losses, Tensor):
        raise InputError(
            f"losses: expected a tensor [B], one value for each sample, not "
            f"{type(losses).__name__}; pass reduction='none' to your loss."
        )
    check_constant("weight", weight)
    if losses.dim() == 0:
        raise InputError(
            "losses: expected one value for each sample, [B], not a single one; "
            "pass reduction='none' to your loss."
        )
    if losses.dim() != 1 or not losses.is_floating_point():
        raise InputError(
            f"losses: expected floating values [B], one for each sample, got {losses.dtype} "
            f"{list(losses.shape)}; take the mean over all other axes, losses.flatten(1).mean(1)."
        )
    if weight is not None and (weight.shape != losses.shape or weight.requires_grad):
        raise InputError(
            f"weight: expected constants {list(losses.shape)}, one for each sample, got "
            f"{list(weight.shape)}; pass weight.detach()."
        )


def check_scores(scores: Mapping[str, Any], samples: int, own: Iterable[str] = ()) -> None:
    """Each is known by name, or one of the policy's `own`, and holds one value a sample."""
    names = (*_NAMES, *(name for name in own if name not in _NAMES))
    for name, value in scores.items():
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown score {name!r}: {hint}(there are: {', '.join(names)})")
        if torch.as_tensor(value).shape != (samples,):
            raise InputError(
                f"{name}: expected one value for each of the {samples} samples, "
                f"got {list(torch.as_tensor(value).shape)}."
            )


def lacking(policy: str | None, names: Iterable[str]) -> InputError | None:
    """What a policy, or else the history, needs of every sample and `update` was not given."""
    names = sorted(names)
    if not names:
        return None
    given = ", ".join(f"{name}=..." for name in names)
    if policy is None:
        return InputError(
            f"history=True notes {' and '.join(names)} of every sample, which never came: pass "
            f"{given} beside the losses, or make the Filter without history"
        )
    return InputError(
        f"policy {policy} needs {' and '.join(names)} of every sample, which never came: pass "
        f"{given} beside the losses, or take policy 'loss', which needs nothing else"
    )


def mixed_only(policy: str, names: Iterable[str]) -> InputError:
    """All scores a policy needs were withheld."""
    return InputError(
        f"policy {policy} needs {' and '.join(sorted(names))} of every sample, which never "
        "came: the score of a mixed sample (soft labels) is the score of none and is not noted; "
        "pass mixed=False to filt.loss where a soft label is one sample's own, or look at clean "
        "samples with filt.rescore"
    )
