"""A network in eval mode for a while: each part of it is then put back into the mode it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Running statistics are used, not updated, and nothing is dropped.

    Part by part, for a network that is trained may hold a part that its owner keeps in eval mode.
    """
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
