"""Checkpoints: one safetensors file, tensors by name and everything else as JSON beside them.

Safetensors because reading it can run no code (nothing here unpickles). Rank 0 writes and reads;
the others receive the bytes. A file is complete or absent: it is written aside, then renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hvdfilter import files
from hvdfilter.errors import InputError
from hvdfilter.world import World

FORMAT = "hvdfilter-checkpoint-1"


def write(path: Path, state: Mapping[str, Any], world: World) -> None:
    """Collective. Rank 0 saves the nested `state` (dicts, lists, numbers, strings, tensors)."""
    error: Exception | None = None
    if world.rank == 0:
        tensors: dict[str, torch.Tensor] = {}
        text = json.dumps(_outline(state, "", tensors))
        data = save(tensors, metadata={"format": FORMAT, "outline": text})
        try:
            files.write(path, data, "checkpoint")
        except InputError as failed:
            error = failed
    world.collective.share_error(error)


def read(path: Path, world: World) -> dict[str, Any]:
    """Collective. The state that `write` saved, on every rank, on the CPU.

    Raises `InputError`, on every rank, for a missing, truncated or foreign file.
    """
    error: Exception | None = None
    data = b""
    if world.rank == 0:
        try:
            data = path.read_bytes()
            _metadata(data, path)
        except FileNotFoundError:
            error = InputError(
                f"there is no checkpoint {path}: the run has not finished its first epoch"
            )
        except OSError as failed:
            error = InputError(f"checkpoint {path} cannot be read: {failed.strerror}")
        except InputError as foreign:
            error = foreign
    world.collective.share_error(error)
    data = world.collective.broadcast_bytes(data if world.rank == 0 else None)
    restored = _restore(json.loads(_metadata(data, path)), load(data))
    assert isinstance(restored, dict)
    return restored


def _outline(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` with each tensor replaced by {"tensor": name}, the tensors put aside by name."""
    if torch.is_tensor(value):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [
            [key, _outline(item, f"{name}/{key}" if name else str(key), tensors)]
            for key, item in value.items()
        ]
        return {"mapping": pairs}  # pairs, because optimiser states have integer keys
    if isinstance(value, list | tuple):
        return {"list": [_outline(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]}
    return value


def _restore(outline: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(outline, dict):
        return outline
    ((kind, content),) = outline.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "mapping":
        return {key: _restore(item, tensors) for key, item in content}
    return [_restore(item, tensors) for item in content]


def _metadata(data: bytes, path: Path) -> str:
    """The outline in the header of a safetensors file; refuses files that are not whole."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        metadata = header.get("__metadata__", {})
        load(data)
    except (ValueError, SafetensorError, AttributeError) as broken:
        raise InputError(
            f"checkpoint {path} is truncated or damaged ({broken}): delete it and start again"
        ) from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of hvdfilter ({FORMAT})")
    return str(metadata["outline"])
