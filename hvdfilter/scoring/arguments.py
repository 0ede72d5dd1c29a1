"""What every scoring function does with its arguments before and after the native call.

Checks shapes, dtypes and devices, translates them into the integers the native modules take, and
turns bad rows that a kernel found into an error. Never looks at a value itself.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from hvdfilter import native
from hvdfilter.errors import InputError
from hvdfilter.installation import build_again
from hvdfilter.scoring.scores import Scores

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
LABEL_CODES = {torch.int32: 0, torch.int64: 1}
SOFT_LABELS = 16
FLOATS = "float32, float64, bfloat16 or float16"


class BadRowsError(InputError):
    """Rows of a batch that cannot be scored; `rows` lists them in ascending order."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows


def check_logits(logits: Tensor, name: str = "logits") -> None:
    """`logits` is [B, C] with C >= 1, of a floating dtype, its class dimension contiguous."""
    if logits.dtype not in DTYPE_CODES:
        raise InputError(f"{name}: dtype must be {FLOATS}, not {logits.dtype}.")
    if logits.dim() != 2 or logits.shape[1] == 0:
        shape = list(logits.shape)
        raise InputError(f"{name}: expected [rows, classes] with at least one class, got {shape}.")
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        raise InputError(f"{name}: the class dimension must be contiguous; call .contiguous().")


def check_labels(labels: Tensor, logits: Tensor, soft: bool = False) -> None:
    """`labels` is [B] of int32 or int64, or with `soft` also floating [B, C], beside `logits`."""
    floating = labels.dtype in DTYPE_CODES
    if not (labels.dtype in LABEL_CODES or (floating and soft)):
        allowed = f"int32, int64, {FLOATS}" if soft else "int32 or int64"
        raise InputError(f"labels: dtype must be {allowed}, not {labels.dtype}.")
    expected = logits.shape if floating else logits.shape[:1]
    if labels.shape != expected:
        raise InputError(
            f"labels: expected shape {list(expected)} beside logits of {list(logits.shape)}, "
            f"got {list(labels.shape)}."
        )
    check_device("labels", labels, logits)


def check_vector(name: str, value: Tensor, logits: Tensor, dims: int = 1) -> None:
    """`value` is a floating constant with one entry, or one row, per row of the logits."""
    if value.dim() != dims or value.shape[0] != logits.shape[0]:
        raise InputError(
            f"{name}: expected {dims} dimension(s), the first of {logits.shape[0]} rows, "
            f"got {list(value.shape)}."
        )
    if not value.is_floating_point():
        raise InputError(f"{name}: dtype must be a floating one, not {value.dtype}.")
    check_device(name, value, logits)


def check_device(name: str, value: Tensor, logits: Tensor) -> None:
    """`value` lives where the logits do."""
    if value.device != logits.device:
        raise InputError(f"{name}: on {value.device}, but the logits are on {logits.device}.")


def row_dtype(logits: Tensor) -> torch.dtype:
    """The dtype of per-row results: float32, or float64 where the logits are."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def backend(device: torch.device) -> tuple[ModuleType, tuple[int, ...]]:
    """The native module for a device and the arguments its functions end with."""
    if device.type == "cpu":
        return native.cpu(), (torch.get_num_threads(),)
    module = native.cuda() if device.type == "cuda" else None
    if module is None:
        raise InputError(
            f"logits: there are no kernels for {device}; move the tensors to the CPU, or for a GPU "
            f"{build_again('HVDFILTER_CUDA=1 ')}."
        )
    return module, (device.index or 0, torch.cuda.current_stream(device).cuda_stream)


def rows_of(logits: Tensor) -> tuple[int, int, int, int, int]:
    """Address, dtype code, rows, classes and row stride, as every native function begins."""
    rows, classes = logits.shape
    return logits.data_ptr(), DTYPE_CODES[logits.dtype], rows, classes, logits.stride(0)


def is_plain(*tensors: Tensor | None) -> bool:
    """True where the kernels may be called at once: no tracing, no tensor subclass."""
    if torch.compiler.is_compiling():
        return False
    plain = (torch.Tensor, torch.nn.Parameter)
    return all(t is None or type(t) in plain for t in tensors)


def scores_of(table: Tensor, features: Tensor | None = None) -> Scores:
    """The kernels' table as `Scores`, the norm extended to the last layer if asked.

    table: [4, B], rows of loss, gradient norm, confidence and margin.
    """
    loss, grad_norm, confidence, margin = table.unbind(0)
    if features is not None:
        length = torch.linalg.vector_norm(features.detach(), dim=1, dtype=table.dtype)
        grad_norm = grad_norm * torch.sqrt(length * length + 1)
    return Scores(loss, grad_norm, confidence, margin, margin > 0)


def check(scores: Scores) -> None:
    """Raise `BadRowsError` if any row of these scores could not be computed.

    On a GPU nothing is checked when scores are computed, for that would wait for the device: the
    rows concerned hold NaN instead. Call this, which does wait, once the scores are needed on the
    host. CPU tensors have been checked already.
    """
    raise_bad_rows(torch.stack(scores[:4]))


def raise_bad_rows(table: Tensor, first: int | None = None) -> None:
    """Name the rows that a kernel marked with a NaN loss and a negative confidence.

    `first` is a CPU kernel's own answer: row * 4 + reason, or -1 for none, which saves the search.
    """
    if first == -1:
        return
    bad = (table[0].isnan() & (table[2] < 0)).nonzero().flatten().tolist()
    if not bad:
        return
    reason = {
        1: "labels: row {} is outside [0, classes) and not ignore_index",
        2: "logits: row {} holds NaN or +inf, or nothing but -inf",
        3: "labels: row {} holds a negative, NaN or infinite share",
    }[-int(table[2, bad[0]])]
    others = f", and {len(bad) - 1} more rows like it" if len(bad) > 1 else ""
    raise BadRowsError(reason.format(bad[0]) + others + ".", bad)
