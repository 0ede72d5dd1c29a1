"""Exact selection of the largest keys over all ranks, and the mask that comes of it.

Keys become integers in the order of the floats; three histogram allreduces of at most 16 KiB find
the threshold, one scan over ranks settles its ties by id. Only integers are reduced, so the result
is the same bits on any number of ranks. Which keys to use is not decided here.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import radix
from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.mask import KeepMask
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.route import as_numpy, nan_error, owned_keys
from hvdfilter.agreement.validate import validate
from hvdfilter.errors import InputError, WorldError

EVERYTHING = np.iinfo(np.int64).max


def agree(keys: Any, ids: Any, num_samples: int, keep: int, collective: Collective) -> KeepMask:
    """The mask of the ``keep`` samples with the largest keys; collective.

    Args:
        keys: float32 [n], NumPy array or CPU tensor; -0.0 equals 0.0, infinities are fine.
        ids: integers [n], in any order and on any rank, each id of ``[0, num_samples)`` on exactly
            one rank; or None for this rank's own block in order (``Blocks``), which costs no
            exchange of keys -- and neither does passing exactly these ids.
        num_samples: size of the whole set, the same on every rank.
        keep: how many samples to keep, ``0 <= keep <= num_samples``, the same on every rank.

    Ties at the threshold are kept in ascending order of id. Raises InputError on every rank, naming
    the rank and the first offending id, for NaN keys, for ids outside the set, given twice or
    missing, for a ``keep`` out of range, and where ranks disagree on ``num_samples`` or ``keep``.
    """
    key, error = owned_keys(keys, ids, num_samples, keep, collective)
    blocks = Blocks(num_samples, collective.size)
    chosen = _select(key, np.array([keep], np.int64), blocks, collective, error=error)
    return merge(chosen, blocks, collective)


def select(
    key: Any,
    keep: int | NDArray[np.int64],
    blocks: Blocks,
    collective: Collective,
    *,
    groups: NDArray[Any] | None = None,
    weights: NDArray[Any] | None = None,
    error: Exception | None = None,
) -> NDArray[np.bool_]:
    """Which samples of this rank's block are among the ``keep`` largest keys of all; collective.

    Args:
        key: float32 [n], n the length of this rank's block, in the order of the ids.
        keep: how many to keep; with ``groups``, an int64 [G] of one budget a group (a budget above
            the size of its group keeps the whole group).
        groups: integers [n] in ``[0, G)``: every group is selected by itself, in the same rounds.
        weights: integers [n] >= 0, what keeping a sample costs. ``keep`` is then a budget of
            weight: samples are taken by (key descending, id ascending) for as long as their summed
            weight stays within it.
        error: what this rank has to report, if anything: all ranks then raise it.

    Returns bool [n]. Errors are raised on every rank, as by `agree`.
    """
    budget = np.zeros(1, np.int64)
    values = np.empty(0, np.float32)
    try:
        budget = _checked_budget(keep)
        values = as_numpy(key, "key")
        length = blocks.length(collective.rank)
        if values.shape != (length,):
            raise InputError(f"key has shape {values.shape}; this rank's block is ({length},)")
        groups = _checked_groups(groups, budget, length)
        weights = _checked_weights(weights, length)
        if budget.min(initial=0) < 0:
            raise InputError(f"keep is {int(budget.min())}; it cannot be negative")
        if groups is None and weights is None and budget[0] > blocks.num_samples:
            raise InputError(f"keep is {int(budget[0])} but there are {blocks.num_samples} samples")
    except InputError as caught:
        error = error or caught
    fingerprint = int.from_bytes(hashlib.sha256(budget.tobytes()).digest()[:7], "little")
    form = (groups is not None) + 2 * (weights is not None)
    validate(
        {
            "num_samples": blocks.num_samples,
            "keep": int(budget[0]) if budget.size == 1 else 0,
            "hash of the budgets": fingerprint,
            "number of groups": budget.size,
            "use of groups and weights": form,
        },
        error,
        collective,
    )
    return _select(values, budget, blocks, collective, groups=groups, weights=weights)


def merge(bits: NDArray[np.bool_], blocks: Blocks, collective: Collective) -> KeepMask:
    """The mask of all ranks' blocks, on every rank; collective.

    A rank sends its own ``num_samples / 8 / size`` bytes packed, and one allreduce proves that all
    hold the same digest. Raises WorldError on every rank if they do not.
    """
    packed = np.packbits(np.asarray(bits, bool), bitorder="little")
    lengths = [blocks.byte_count(rank) for rank in range(blocks.size)]
    mask = KeepMask(collective.allgather_flat(packed, lengths), blocks.num_samples)
    words = np.frombuffer(bytes.fromhex(mask.digest), np.int64)
    highest = collective.allreduce(np.concatenate([words, ~words]), "max")
    if not np.array_equal(highest[:4], ~highest[4:]):
        raise WorldError(
            "the ranks ended with different keep-masks: a message was damaged on its way"
        )
    return mask


def _select(
    keys: NDArray[np.float32],
    keep: NDArray[np.int64],
    blocks: Blocks,
    collective: Collective,
    *,
    groups: NDArray[np.int32] | None = None,
    weights: NDArray[np.int64] | None = None,
    error: Exception | None = None,
) -> NDArray[np.bool_]:
    """The three rounds and the scan. ``error`` joins the first round, so checking costs nothing."""
    count = keep.size
    everyone = np.arange(count)
    rest = keep.copy()
    above_all = np.zeros(count, np.bool_)  # the budget covers the whole group
    thresholds = np.zeros(count, np.uint32)
    children: list[NDArray[np.int32]] = []
    for level, width in enumerate(radix.WIDTHS):
        histogram = radix.count(keys, level, groups, children, count, weights)
        local = histogram
        if level == 0:
            if error is None:
                error = _nan_error(keys, blocks.start(collective.rank))
            # Only NaNs have the lowest digit, so its count is free to carry errors.
            histogram[0, 0] = error is not None
        histogram = collective.allreduce(histogram)
        if level == 0 and histogram[0, 0]:
            collective.share_error(error)
        digit, rest, covered = crossing(histogram, rest)
        if level == 0:
            above_all = covered
        thresholds |= digit.astype(np.uint32) << np.uint32(radix.SHIFTS[level])
        child = np.full((count, width), -1, np.int32)
        child[everyone, digit] = everyone
        children.append(child)
    rest = rest - collective.exscan(local[everyone, digit])  # ties of lower ranks come first
    thresholds[above_all] = 0
    rest[above_all] = EVERYTHING
    return radix.emit(keys, thresholds, rest, groups, weights)


def crossing(
    histogram: NDArray[np.int64], rest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """For every row: the bin, counted from the top, in which the budget runs out.

    Returns that digit, what is left of the budget for the bin, and whether the budget never runs
    out (the digit is then 0).
    """
    from_top = np.cumsum(histogram[:, ::-1], axis=1)
    crossed = from_top > rest[:, None]
    covered = ~crossed[:, -1]
    column = np.where(covered, histogram.shape[1] - 1, np.argmax(crossed, axis=1))
    row = np.arange(len(histogram))
    above = from_top[row, column] - histogram[:, ::-1][row, column]
    return histogram.shape[1] - 1 - column, rest - above, covered


def _nan_error(keys: NDArray[np.float32], start: int) -> InputError | None:
    first = radix.first_nan(keys)
    if first is None:
        return None
    return nan_error(start + first, int(np.isnan(keys).sum()))


def _checked_budget(keep: Any) -> NDArray[np.int64]:
    budget = np.atleast_1d(np.asarray(keep))
    if budget.dtype.kind not in "iu" or budget.ndim != 1 or not budget.size:
        raise InputError(f"keep must be an integer or one for each group, not {keep!r}")
    return budget.astype(np.int64)


def _checked_groups(
    groups: Any, budget: NDArray[np.int64], length: int
) -> NDArray[np.int32] | None:
    if groups is None:
        if budget.size != 1:
            raise InputError(f"keep has {budget.size} values; several budgets need groups")
        return None
    result = np.asarray(groups)
    if result.shape != (length,) or result.dtype.kind not in "iu":
        raise InputError(
            f"groups must be integers of shape ({length},), not {result.dtype} {result.shape}"
        )
    if length and not (0 <= result.min() and result.max() < budget.size):
        raise InputError(f"groups must lie in [0, {budget.size}), the number of budgets given")
    return np.ascontiguousarray(result, np.int32)


def _checked_weights(weights: Any, length: int) -> NDArray[np.int64] | None:
    if weights is None:
        return None
    result = np.asarray(weights)
    if result.shape != (length,) or result.dtype.kind not in "iu":
        raise InputError(
            f"weights must be integers of shape ({length},), not {result.dtype} {result.shape}"
        )
    if length and result.min() < 0:
        raise InputError("weights cannot be negative")
    return np.ascontiguousarray(result, np.int64)
