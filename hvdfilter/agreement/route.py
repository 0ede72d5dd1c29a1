"""Bringing keys to the owners of their samples: (id, key) pairs travel once, or not at all.

Owners see every id of their block, so they can name an id that came twice or from nobody. Nothing
here looks at the keys' values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.validate import validate
from hvdfilter.errors import InputError

_CHUNK = 1 << 20


def as_numpy(values: Any, name: str) -> NDArray[np.float32]:
    """float32 NumPy array from an array or a CPU tensor; InputError names the argument."""
    if hasattr(values, "detach"):
        if values.device.type != "cpu":
            raise InputError(f"{name} is on {values.device}; move it to the CPU first")
        values = values.detach().numpy()
    result = np.asarray(values)
    if result.dtype != np.float32:
        raise InputError(f"{name} must be float32, not {result.dtype}")
    return np.ascontiguousarray(result)


def owned_keys(
    keys: Any, ids: Any, num_samples: int, keep: int, collective: Collective
) -> tuple[NDArray[np.float32], Exception | None]:
    """The keys of this rank's block in order of id, wherever they were; collective.

    Arguments as for `hvdfilter.agreement.select.agree`. One allreduce settles that the ranks agree
    and whether anything has to travel at all; one all-to-all moves the pairs if so. An owner's
    complaint (an id twice, an id missing) is returned, to be shared with the next collective.
    """
    error: Exception | None = None
    values, names, in_place = np.empty(0, np.float32), None, False
    try:
        for name, number in (("num_samples", num_samples), ("keep", keep)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer):
                raise InputError(f"{name} must be an integer, not {number!r}")
        if not 0 <= keep <= num_samples:
            raise InputError(f"keep is {keep}; it must lie in [0, {num_samples}]")
        blocks = Blocks(int(num_samples), collective.size)
        values = as_numpy(keys, "keys")
        names = None if ids is None else as_ids(ids, values.shape, num_samples)
        in_place = _is_block(names, values.size, blocks, collective.rank)
        if names is not None and not in_place and np.isnan(values).any():
            # named here, where it came from; the owner would have to take the blame
            raise nan_error(int(names[np.isnan(values)][0]), int(np.isnan(values).sum()))
    except InputError as caught:
        error = caught
    shared = {
        "num_samples": int(num_samples) if isinstance(num_samples, int | np.integer) else -1,
        "keep": int(keep) if isinstance(keep, int | np.integer) else -1,
    }
    moving = validate(shared, error, collective, moving=not in_place)["moving"]
    if not moving:
        return values, None
    blocks = Blocks(int(num_samples), collective.size)
    if names is None:
        names = np.arange(values.size) + blocks.start(collective.rank)
    return _route(values, names, blocks, collective)


def nan_error(first: int, number: int) -> InputError:
    """The complaint about NaN keys; ``first`` is an id."""
    return InputError(
        f"the key of id {first} is NaN ({number} such keys on this rank); "
        "keys must be numbers or infinities"
    )


def as_ids(ids: Any, shape: tuple[int, ...], num_samples: int) -> NDArray[np.int64]:
    """Ids as int64 NumPy array of the given 1-D shape, all inside ``[0, num_samples)``."""
    result = np.asarray(ids.detach().cpu().numpy() if hasattr(ids, "detach") else ids)
    if result.dtype.kind not in "iu" and result.size:
        raise InputError(f"ids must be integers, not {result.dtype}")
    if result.shape != shape or len(shape) != 1:
        raise InputError(f"ids of shape {result.shape} do not match values of shape {shape}")
    result = result.astype(np.int64, copy=False)
    if result.size and not (0 <= result.min() and result.max() < num_samples):
        wrong = result[(result < 0) | (result >= num_samples)][0]
        raise InputError(f"id {wrong} lies outside [0, {num_samples})")
    return result


def split_by_owner(
    records: NDArray[Any], ids: NDArray[np.int64], blocks: Blocks
) -> list[NDArray[Any]]:
    """The records of each owner, in their original order."""
    if blocks.size == 1:
        return [records]
    owner = blocks.owner(ids)
    if blocks.size <= 1 << 16:
        owner = owner.astype(np.uint16)  # NumPy sorts 16 bits by radix, in linear time
    order = np.argsort(owner, kind="stable")
    cuts = np.cumsum(np.bincount(owner, minlength=blocks.size))[:-1]
    return np.split(records[order], cuts)


def _is_block(ids: NDArray[np.int64] | None, size: int, blocks: Blocks, rank: int) -> bool:
    start, length = blocks.start(rank), blocks.length(rank)
    if ids is None:
        if size != length:
            raise InputError(f"{size} keys without ids, but this rank's block has {length}")
        return True
    if size != length:
        return False
    for at in range(0, size, _CHUNK):
        part = ids[at : at + _CHUNK]
        if not np.array_equal(part, np.arange(start + at, start + at + part.size)):
            return False
    return True


def _route(
    keys: NDArray[np.float32], ids: NDArray[np.int64], blocks: Blocks, collective: Collective
) -> tuple[NDArray[np.float32], Exception | None]:
    wide = blocks.num_samples > 1 << 32
    pair = np.dtype([("id", "<u8" if wide else "<u4"), ("key", "<f4")])
    records = np.empty(keys.size, pair)
    records["id"] = ids
    records["key"] = keys
    received = collective.alltoall(split_by_owner(records, ids, blocks))
    rank = collective.rank
    start, length = blocks.start(rank), blocks.length(rank)
    result = np.zeros(length, np.float32)
    seen = np.zeros(length, np.bool_)
    twice: int | None = None
    for part in received:
        offset = part["id"].astype(np.int64) - start
        if twice is None:
            twice = _first_repeat(offset, seen)
        seen[offset] = True
        result[offset] = part["key"]
    if twice is not None:
        givers = [r for r, part in enumerate(received) if (part["id"] == start + twice).any()]
        by = " and ".join(f"rank {r}" for r in givers) + (" twice" if len(givers) == 1 else "")
        return result, InputError(f"id {start + twice} was given by {by}; give each id once")
    if not seen.all():
        missing = start + int(np.argmin(seen))
        return result, InputError(
            f"id {missing} was given by no rank ({int((~seen).sum())} such ids in its block)"
        )
    return result, None


def _first_repeat(offset: NDArray[np.int64], seen: NDArray[np.bool_]) -> int | None:
    """The smallest offset that was seen before or comes twice in this part."""
    times = np.bincount(offset, minlength=seen.size)
    repeated = (times > 1) | ((times > 0) & seen)
    return int(np.argmax(repeated)) if repeated.any() else None
