"""The ids of a batch: checked where they come in, and what errors are told in.

A rank's own errors; nothing here communicates, and nothing waits for a device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvdfilter.errors import InputError

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)


def check_ids(ids: Any, samples: int, num_samples: int) -> Tensor:
    """`ids` as a tensor: integers [samples] in [0, num_samples), each naming one of the batch.

    Raises `InputError`. The values of ids on a GPU are not looked at: `outside` marks them.
    """
    try:
        ids = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"ids: expected integers, got {type(ids).__name__}.") from None
    if ids.dtype not in _INTEGERS:
        raise InputError(f"ids: dtype must be int64 or int32, not {ids.dtype}.")
    if ids.dim() != 1 or ids.shape[0] != samples:
        raise InputError(
            f"ids: expected one id for each of the {samples} samples of the batch, "
            f"got {list(ids.shape)}."
        )
    if samples and not ids.is_cuda:
        low, high = torch.aminmax(ids)
        if low.item() < 0 or high.item() >= num_samples:
            raise _outside(ids, num_samples)
    return ids


def outside(ids: Tensor, num_samples: int) -> Tensor:
    """bool scalar on the ids' device: whether any lies outside the set."""
    return ((ids < 0) | (ids >= num_samples)).any()


def check_range(ids: Tensor, num_samples: int) -> None:
    """Raise `InputError` for ids outside the set; waits for their device."""
    if ids.numel() and bool(outside(ids, num_samples)):
        raise _outside(ids, num_samples)


def name_ids(error: InputError, ids: Tensor, rows: int = 1) -> InputError:
    """The same error, told in sample ids instead of rows of a batch with `rows` a sample."""
    bad = getattr(error, "rows", [])
    if not bad:
        return error
    named = dict.fromkeys(int(ids[row // rows]) for row in bad[:8])
    return InputError(f"sample id {', '.join(map(str, named))}: {error}")


def _outside(ids: Tensor, num_samples: int) -> InputError:
    ids = ids.cpu()
    first = int(ids[(ids < 0) | (ids >= num_samples)][0])
    return InputError(
        f"ids: {first} lies outside [0, {num_samples}); ids are those that hf.Indexed hands out "
        "with each sample of the set the Filter was made for."
    )
