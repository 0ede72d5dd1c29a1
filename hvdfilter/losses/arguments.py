"""What `hard_negative` is given: checked on each rank, then held against that of the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvdfilter.agreement import Call, Collective
from hvdfilter.errors import InputError, on_all_ranks

HINGES = ("max", "sum")


def check(images: Any, captions: Any, margin: Any, hinges: Any, ids: Any) -> None:
    """Raises `InputError` for what does not fit on this rank; no embedding's value is looked at."""
    for name, value in (("images", images), ("captions", captions)):
        if not isinstance(value, Tensor):
            raise InputError(f"{name}: expected embeddings [B, D], not {type(value).__name__}")
        if value.dim() != 2 or not value.shape[1] or not value.is_floating_point():
            raise InputError(
                f"{name}: expected floating embeddings [B, D], one row a pair, got {value.dtype} "
                f"{list(value.shape)}"
            )
    if (images.shape, images.dtype, images.device) != (
        captions.shape,
        captions.dtype,
        captions.device,
    ):
        raise InputError(
            f"images are {images.dtype} {list(images.shape)} on {images.device} but captions "
            f"{captions.dtype} {list(captions.shape)} on {captions.device}: row i of both is pair i"
        )
    number = isinstance(margin, int | float | np.integer | np.floating)
    if not number or isinstance(margin, bool) or not 0 <= margin < math.inf:
        raise InputError(f"margin is {margin!r}; it must be a number of at least 0")
    if hinges not in HINGES:
        raise InputError(f"hinges is {hinges!r}; use one of {', '.join(map(repr, HINGES))}")
    if ids is not None:
        whole = isinstance(ids, Tensor) and not (ids.is_floating_point() or ids.is_complex())
        if not whole or ids.shape != images.shape[:1]:
            given = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids)
            raise InputError(f"ids: expected integers [{len(images)}], one a pair, got {given}")


def of_length_one(name: str, rows: Tensor) -> Tensor:
    """The rows divided by their lengths, float32 or float64, differentiable.

    Raises `InputError` for a row without a direction: NaN, infinite, zero.
    """
    rows = rows if rows.dtype == torch.float64 else rows.float()
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    wrong = ~(lengths.isfinite() & (lengths > 0))[:, 0]
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise InputError(
            f"{name}: row {first} has length {lengths[first].item():g} and so no cosine "
            f"({int(wrong.sum())} such rows on this rank); embeddings must be finite and not zero"
        )
    return rows / lengths


def agree(
    collective: Collective,
    error: Exception | None,
    units: tuple[Tensor, Tensor] | tuple[None, None],
    margin: float,
    hinges: str,
    ids: Tensor | None,
) -> list[int]:
    """Collective. How many pairs each rank has brought, once all are found to fit together.

    error: this rank's own, which all ranks then raise. units: both embeddings, of length 1.
    """
    collective.meet(Call.HARD_NEGATIVE, error=error)
    images, captions = units
    assert images is not None and captions is not None  # or there was an error
    differentiable = images.requires_grad or captions.requires_grad
    mine = {
        "number of pairs": len(images),
        "size of an embedding": images.shape[1],
        "precision": 8 * images.element_size(),
        "margin": float(margin),
        "hinges": HINGES.index(hinges),
        "ids": ids is not None,
        "gradient": torch.is_grad_enabled() and differentiable,
    }
    words = np.array(list(mine.values()), np.float64)
    everyone = collective.allgather_flat(words, [len(words)] * collective.size)
    table = everyone.reshape(collective.size, -1)
    for column, name in list(enumerate(mine))[1:]:
        odd = np.flatnonzero(table[:, column] != table[0, column])
        if odd.size:
            shown = [_show(name, table[rank, column]) for rank in (odd[0], 0)]
            raise on_all_ranks(
                f"rank {odd[0]}: its {name} is {shown[0]} but rank 0 has {shown[1]}; all ranks "
                "must pass hard_negative the same"
            )
    pairs = [int(n) for n in table[:, 0]]
    if sum(pairs) < 2:
        raise on_all_ranks(
            f"hard_negative needs at least 2 pairs over all ranks, not {sum(pairs)}: the negatives "
            "of a pair are the others of the batch"
        )
    return pairs


def check_several(all_ids: Tensor) -> None:
    """Raises, on all ranks alike, `InputError` for ids among which no pair has a negative."""
    if bool((all_ids == all_ids[0]).all()):
        raise on_all_ranks(
            f"all {len(all_ids)} pairs of the batch have id {int(all_ids[0])}, so none is a "
            "negative of another: draw batches of several ids"
        )


def _show(name: str, value: float) -> str:
    if name == "hinges":
        return repr(HINGES[int(value)])
    if name == "gradient":
        return "wanted" if value else "not wanted"
    if name == "ids":
        return "given" if value else "None"
    return f"{value:g}" + " bits" * (name == "precision")
