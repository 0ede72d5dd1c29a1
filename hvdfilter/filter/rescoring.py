"""A forward-only pass over samples that are not trained on, so that their scores stay fresh.

Nothing here communicates, and nothing of the model is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from hvdfilter.errors import InputError


def rescore(
    model: torch.nn.Module,
    batches: Iterable[Any],
    note: Callable[[Tensor, Tensor, Tensor], Any],
    device: torch.device,
) -> InputError | None:
    """Hand the model's logits of every batch (ids, x, y) to `note(logits, labels, ids)`.

    The model runs in eval mode, so that BatchNorm statistics stay those of training, and is put
    back into the mode it was in. A batch that is refused ends the pass: its error is returned, for
    the other ranks have a pass of their own to finish before all can raise it.
    """
    error = None
    training = model.training
    model.eval()
    with torch.no_grad():
        try:
            for ids, x, y in batches:
                x, y = x.to(device), y.to(device)
                note(model(x), y, ids)
        except InputError as refused:
            error = refused
        finally:
            model.train(training)
        if device.type == "cuda":
            torch.cuda.synchronize()  # so that the pass pays for its own kernels
    return error
