"""Observations waiting for the next exchange, on the device they were made on.

Batches are kept as they come; when enough rows have gathered they are joined and start moving to
pinned host memory on the device's own stream. The host waits for the device once, in `take`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.errors import InputError


class ObservationBuffer:
    """Rows of (id, observed values) in the order they were added.

    Args:
        names: the values to read from every batch.
        device_rows: rows kept on a device before they are moved on.
    """

    def __init__(self, names: tuple[str, ...], device_rows: int) -> None:
        self._names = ("ids", *names)
        self._device_rows = device_rows
        self._fresh: list[list[torch.Tensor]] = []
        self._fresh_rows = 0
        self._moved: list[list[torch.Tensor]] = []
        self._copied: list[torch.cuda.Event] = []
        self.rows = 0

    def add(self, ids: Any, scores: Any) -> None:
        """Note a batch; shapes are checked, values are not looked at."""
        row = [torch.as_tensor(ids)]
        if row[0].dim() != 1 or row[0].is_floating_point():
            raise InputError(f"ids must be integers of shape [B], not {tuple(row[0].shape)}")
        for name in self._names[1:]:
            value = scores.get(name) if isinstance(scores, Mapping) else getattr(scores, name, None)
            if value is None:
                raise InputError(f"the scores lack {name!r}, which a field of the book observes")
            tensor = torch.as_tensor(value).detach()
            if tensor.is_floating_point():
                tensor = tensor.float()  # records hold float32, and NumPy has no bfloat16
            if tensor.shape != row[0].shape:
                raise InputError(
                    f"{name} has shape {tuple(tensor.shape)} but there are {row[0].numel()} ids"
                )
            row.append(tensor)
        if self._fresh and any(
            a.device != b.device for a, b in zip(row, self._fresh[-1], strict=True)
        ):
            self._move()  # only what lies on one device can be joined
        self._fresh.append(row)
        self._fresh_rows += row[0].numel()
        self.rows += row[0].numel()
        if self._fresh_rows >= self._device_rows:
            self._move()

    def take(self) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """All rows as host arrays, in order, and an empty buffer; waits for the device once."""
        self._move()
        for copied in self._copied:
            copied.synchronize()
        moved, self._moved, self._copied, self.rows = self._moved, [], [], 0
        columns = [[row[i] for row in moved] for i in range(len(self._names))]
        joined = [
            (torch.cat(column) if len(column) > 1 else column[0]).numpy() if column else None
            for column in columns
        ]
        ids = np.empty(0, np.int64) if joined[0] is None else joined[0].astype(np.int64, copy=False)
        values: dict[str, NDArray[Any]] = {}
        for name, column in zip(self._names[1:], joined[1:], strict=True):
            dtype = np.bool_ if name == "correct" else np.float32
            values[name] = (
                np.empty(0, dtype) if column is None else column.astype(dtype, copy=False)
            )
        return ids, values

    def _move(self) -> None:
        if not self._fresh:
            return
        self._moved.append(
            [self._to_host(list(column)) for column in zip(*self._fresh, strict=True)]
        )
        self._fresh, self._fresh_rows = [], 0

    def _to_host(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        joined = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        if joined.device.type == "cpu":
            return joined
        pinned = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
        pinned.copy_(joined, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(joined.device))
        self._copied.append(copied)
        return pinned
