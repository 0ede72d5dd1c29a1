"""Observations waiting for the next exchange.

On the host they are copied. On a GPU batches are kept as they come; when enough rows have gathered
they are joined and start moving to pinned host memory on the device's own stream. The host looks at
them when the next ones follow, and waits for the device once, in `take`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.agreement.fields import OBSERVABLE
from hvdfilter.agreement.host_rows import HostRows, Piece, settle
from hvdfilter.errors import InputError


class _Moved(NamedTuple):
    """Calls on their way to the host; a last column beyond the values says which rows count."""

    columns: list[torch.Tensor]
    calls: list[int]
    copied: torch.cuda.Event


class ObservationBuffer:
    """Rows of (id, observed values) in the order they were added.

    Args:
        names: the values to read from every batch.
        device_rows: rows kept on a device before they are moved on, or on the host before the
            rows of one sample in one call are joined.
    """

    def __init__(self, names: tuple[str, ...], device_rows: int) -> None:
        self._names = names
        self._table_rows = [OBSERVABLE.index(name) for name in names if name in OBSERVABLE]
        self._dtypes = tuple(np.bool_ if name == "correct" else np.float32 for name in names)
        self._device_rows = device_rows
        self._host = HostRows(self._dtypes)
        self._fresh: list[tuple[list[torch.Tensor], torch.Tensor | None]] = []
        self._fresh_rows = 0
        self._moving: _Moved | None = None
        self._arrived: list[Piece] = []
        self.rows = 0

    def add(self, ids: Any, scores: Any, seen: torch.Tensor | None = None) -> None:
        """Note a batch; shapes are checked, values are not looked at.

        scores: attributes or keys by name, or a table of the kernels, [4, B]: rows in the order of
        `OBSERVABLE`, of which `correct` is a margin above 0 and a confidence of 0 was not seen.
        seen: [B] or None; rows where it is 0 (or False) are dropped.
        """
        ids = torch.as_tensor(ids)
        if ids.dim() != 1 or ids.is_floating_point():
            raise InputError(f"ids must be integers of shape [B], not {tuple(ids.shape)}")
        if isinstance(scores, torch.Tensor):
            if not (ids.is_cuda or scores.is_cuda) and len(self._table_rows) == len(self._names):
                # What every step on a CPU does: no tensor is made.
                table = scores.numpy()
                columns = [table[3] > 0 if at == 4 else table[at] for at in self._table_rows]
                self._append(ids, columns, table[2])
                return
            seen, scores = scores[2], dict(zip(OBSERVABLE, (*scores, scores[3] > 0), strict=True))
        row, host = [ids], not ids.is_cuda
        for name in self._names:
            value = scores.get(name) if isinstance(scores, Mapping) else getattr(scores, name, None)
            if value is None:
                raise InputError(f"the scores lack {name!r}, which a field of the book observes")
            row.append(_column(name, value, ids))
            host = host and not row[-1].is_cuda
        if host and (seen is None or not seen.is_cuda):
            columns = [column.numpy() for column in row[1:]]
            self._append(ids, columns, None if seen is None else seen.numpy())
            return
        self.rows += ids.shape[0]
        if self._fresh and any(
            a.device != b.device for a, b in zip(row, self._fresh[-1][0], strict=True)
        ):
            self._move()  # only what lies on one device can be joined
        self._fresh.append((row, seen))
        self._fresh_rows += ids.shape[0]
        if self._fresh_rows >= self._device_rows:
            self._move()

    def _append(
        self, ids: torch.Tensor, columns: list[NDArray[Any]], seen: NDArray[Any] | None
    ) -> None:
        """Copy rows that are on the host."""
        self._move()
        self.rows += ids.shape[0]
        self._host.append(ids.numpy(), columns, seen)
        if self._host.rows >= self._device_rows:
            self._arrive()

    def take(self) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """All rows as host arrays, in order of the calls, and an empty buffer.

        Rows of one call that name the same sample have become one, their mean. Waits for the
        device once.
        """
        self._move()
        self._arrive()
        arrived, self._arrived, self.rows = self._arrived, [], 0
        if not arrived:
            arrived = [(np.empty(0, np.int64), [np.empty(0, kind) for kind in self._dtypes])]
        ids, columns = zip(*arrived, strict=True)
        values = map(_joined, zip(*columns, strict=True))
        return _joined(ids), dict(zip(self._names, values, strict=True))

    def _move(self) -> None:
        """Join what is fresh on a device and let it set out; what came before is taken in."""
        if not self._fresh:
            return
        self._arrive()
        rows, seen = zip(*self._fresh, strict=True)
        columns = [_to_host(list(column)) for column in zip(*rows, strict=True)]
        calls = [row[0].shape[0] for row in rows]
        device = next((mark.device for mark in seen if mark is not None), None)
        if device is not None:
            marks = [
                torch.ones(count, device=device) if mark is None else mark
                for count, mark in zip(calls, seen, strict=True)
            ]
            columns.append(_to_host(marks))
        device = device or next(column.device for column in rows[0] if column.is_cuda)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(device))
        self._moving = _Moved(columns, calls, copied)
        self._fresh, self._fresh_rows = [], 0

    def _arrive(self) -> None:
        """Take in what is on its way, and then what has been copied since it set out."""
        if self._moving is not None:
            columns, calls, copied = self._moving
            self._moving = None
            copied.synchronize()
            arrays = [column.numpy() for column in columns]
            seen = arrays.pop() if len(arrays) > 1 + len(self._names) else None
            self._arrived.append(settle(arrays[0], arrays[1:], calls, seen))
        if self._host.rows:
            self._arrived.append(self._host.take())


def _column(name: str, value: Any, ids: torch.Tensor) -> torch.Tensor:
    """A value as a tensor that a record can take: bool for `correct`, else float."""
    tensor = torch.as_tensor(value).detach()
    if tensor.shape != ids.shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)} but there are {len(ids)} ids")
    if name != "correct":
        # Records hold float32, and NumPy has no bfloat16.
        return tensor if tensor.dtype == torch.float32 else tensor.float()
    if tensor.dtype == torch.bool:
        return tensor
    # A share of a sample's parts counts as one: correct is what is mostly so.
    return tensor > 0.5


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _to_host(tensors: list[torch.Tensor]) -> torch.Tensor:
    joined = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    if not joined.is_cuda:
        return joined
    pinned = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
    return pinned.copy_(joined, non_blocking=True)
