"""A network in another mode for a while: each part is then put back into the mode it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Running statistics are used, not updated, and nothing is dropped."""
    with kept_modes(model):
        model.eval()
        yield


@contextmanager
def kept_modes(model: torch.nn.Module) -> Iterator[None]:
    """Whatever mode the model is put into, its parts are put back.

    Part by part, for a network that is trained may hold a part that its owner keeps in eval mode.
    """
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
