"""Epochs of a Filter without a model: logits are made to measure."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import hvdfilter as hf

CLASSES = 5


def scored(filt: hf.Filter, ids: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
    """Train-step stand-in: logits whose true class leads by `gap`."""
    labels = ids % CLASSES
    logits = F.one_hot(labels, CLASSES) * gap[ids, None]
    return filt.loss(logits.requires_grad_(), labels, ids)


def run_epoch(filt: hf.Filter, epoch: int, gap: torch.Tensor, rescore: bool = True) -> list[int]:
    """One epoch at batch 16; returns the ids trained, in order."""
    filt.begin_epoch(epoch)
    order = list(filt.sampler())
    for start in range(0, len(order), 16):
        scored(filt, torch.tensor(order[start : start + 16]), gap)
    if rescore:
        hidden = torch.tensor(list(filt.hidden_sampler()), dtype=torch.int64)
        if len(hidden):
            filt.note(
                F.one_hot(hidden % CLASSES, CLASSES) * gap[hidden, None], hidden % CLASSES, hidden
            )
    return order
