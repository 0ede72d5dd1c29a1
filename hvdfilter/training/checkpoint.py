"""One file of a checkpoint: nested plain values and tensors, sealed by a digest in its name.

Safetensors, because reading it can run no code (nothing here unpickles); everything that is no
tensor is JSON in its header. A file is complete or absent, and called `STEM.DIGEST.safetensors`, so
that no bit of it can change unseen. It knows nothing of ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hvdfilter import files
from hvdfilter.errors import InputError

FORMAT = "hvdfilter-checkpoint-2"
SUFFIX = ".safetensors"
REMEDY = "make room, and go on with --resume true"
_DIGITS = 32  # of SHA-256 in hex: 128 bits


def encode(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a nested state (dicts, lists, numbers, strings, tensors) and its outline.

    Tensors are copies in host memory: the state may change afterwards.
    """
    tensors: dict[str, torch.Tensor] = {}
    outline = json.dumps(_outline(state, "", tensors))
    return tensors, outline


def write(
    folder: Path,
    stem: str,
    tensors: dict[str, torch.Tensor],
    outline: str,
    remedy: str = REMEDY,
) -> Path:
    """Save what `encode` gave; the file's path. `InputError` where it cannot be written."""
    data = save(tensors, metadata={"format": FORMAT, "outline": outline})
    path = folder / f"{stem}.{digest(data)}{SUFFIX}"
    with files.replacing(path, "checkpoint", remedy) as file:
        file.write(data)
    return path


def read(path: Path) -> bytes:
    """The file, if it is what was written: `InputError` names one that is not."""
    with files.opened(path) as file:
        data = file.read()
    if digest(data) != path.name.removesuffix(SUFFIX).rpartition(".")[2]:
        raise InputError(f"checkpoint {path} is damaged: it is not what was written")
    return data


def decode(data: bytes, path: Path) -> dict[str, Any]:
    """The state in a file's bytes, its tensors on the CPU; `InputError` for another format."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        tensors = load(data)
    except (ValueError, SafetensorError, AttributeError) as broken:
        raise InputError(f"checkpoint {path} is damaged: {broken}") from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of this hvdfilter ({FORMAT})")
    restored = _restore(json.loads(metadata["outline"]), tensors)
    assert isinstance(restored, dict)
    return restored


def digest(data: bytes) -> str:
    """What a file's name says of its contents."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _outline(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` with each tensor replaced by {"tensor": name}, the tensors put aside by name."""
    if torch.is_tensor(value):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
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
