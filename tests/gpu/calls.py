"""Calls into a `_cuda` module by its raw signatures, on tensors of whatever device it works on.

Shared by the emulated and the real device's tests; `tail` is what its functions end with: device
and stream.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
LABELS = {torch.int32: 0, torch.int64: 1, torch.float32: 16}
IGNORED = -100
NOTHING = 7.0e30  # what outputs hold before a call, so that an unwritten one shows


class Device:
    """A module, the arguments its functions end with, and the device its tensors live on."""

    def __init__(self, module: ModuleType, tail: tuple[int, int], place: str) -> None:
        self.module, self.tail, self.place = module, tail, torch.device(place)

    def call(self, name: str, tensors: tuple[Tensor, ...], *arguments: object) -> int | None:
        """One native call; `tensors` are all it may touch, what it reads first coming first."""
        found: int | None = getattr(self.module, name)(*arguments, *self.tail)
        return found


class Result(NamedTuple):
    """Everything cross_entropy writes."""

    table: Tensor
    sums: Tensor
    loss: Tensor
    count: Tensor
    grad: Tensor


def rows_of(logits: Tensor) -> tuple[int, int, int, int, int]:
    rows, classes = logits.shape
    return logits.data_ptr(), DTYPES[logits.dtype], rows, classes, logits.stride(0)


def filled(logits: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, NOTHING, dtype=dtype, device=logits.device)


def score(device: Device, logits: Tensor, labels: Tensor) -> Tensor:
    table = filled(logits, 4, logits.shape[0])
    found = device.call(
        "score",
        (logits, labels, table),
        *rows_of(logits),
        *targets_of(labels)[:2],
        IGNORED,
        table.data_ptr(),
    )
    assert found == -1
    return table


def targets_of(labels: Tensor) -> tuple[int, int, int, int]:
    return labels.data_ptr(), LABELS[labels.dtype], labels.stride(0), IGNORED


def cross_entropy(
    device: Device,
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
    grad: Tensor | None = None,
) -> Result:
    rows = logits.shape[0]
    grad = torch.full_like(logits, 9.0) if grad is None else grad
    result = Result(
        filled(logits, 4, rows),
        filled(logits, 4, rows, dtype=torch.float64),
        filled(logits),
        filled(logits),
        grad,
    )
    device.call(
        "cross_entropy",
        (logits, labels, *result, *(() if weight is None else (weight,))),
        *rows_of(logits),
        *targets_of(labels),
        0 if weight is None else weight.data_ptr(),
        smoothing,
        result.table.data_ptr(),
        result.sums.data_ptr(),
        result.loss.data_ptr(),
        result.count.data_ptr(),
        grad.data_ptr(),
        grad.stride(0),
    )
    return result


def backward(
    device: Device,
    logits: Tensor,
    labels: Tensor,
    forward: Result,
    upstream: Tensor,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    grad = torch.full_like(logits, 9.0)
    tensors = (logits, labels, forward.sums, forward.count, upstream, grad)
    device.call(
        "cross_entropy_backward",
        tensors if weight is None else (*tensors, weight),
        *rows_of(logits),
        *targets_of(labels),
        0 if weight is None else weight.data_ptr(),
        smoothing,
        forward.sums.data_ptr(),
        forward.count.data_ptr(),
        upstream.data_ptr(),
        grad.data_ptr(),
        grad.stride(0),
    )
    return grad


def row_sums(device: Device, logits: Tensor, labels: Tensor, first: int, sums: Tensor) -> None:
    device.call(
        "row_sums",
        (logits, labels, sums),
        *rows_of(logits),
        *targets_of(labels)[:2],
        IGNORED,
        first,
        sums.data_ptr(),
    )


def finish_rows(device: Device, sums: Tensor, classes: int, labels: Tensor) -> Tensor:
    rows = sums.shape[1]
    table = filled(sums, 4, rows)
    device.call(
        "finish_rows",
        (sums, labels, table),
        sums.data_ptr(),
        0,
        rows,
        classes,
        *targets_of(labels)[:2],
        IGNORED,
        table.data_ptr(),
    )
    return table


def row_gradient(
    device: Device,
    logits: Tensor,
    labels: Tensor,
    first: int,
    total: int,
    sums: Tensor,
    scale: Tensor,
) -> None:
    """Written over the logits."""
    device.call(
        "row_gradient",
        (logits, labels, sums, scale),
        *rows_of(logits),
        *targets_of(labels)[:2],
        IGNORED,
        first,
        total,
        sums.data_ptr(),
        scale.data_ptr(),
        logits.data_ptr(),
        logits.stride(0),
    )


def rescale(device: Device, grad: Tensor, upstream: Tensor) -> None:
    """In place."""
    device.call(
        "rescale",
        (grad, upstream),
        grad.data_ptr(),
        DTYPES[grad.dtype],
        grad.numel(),
        upstream.data_ptr(),
    )
