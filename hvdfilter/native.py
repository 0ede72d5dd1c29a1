"""The compiled modules: `cpu`, always there, and `cuda()`, where it was built and can be used.

The one place that loads them. Holds no wrappers: callers pass addresses as csrc/README.md says.
"""

from __future__ import annotations

import functools
from types import ModuleType

# torch first: its OpenMP run-time is the one that the kernels take their threads from.
import torch

try:
    from hvdfilter import _cpu as cpu
except ImportError as error:
    raise ImportError(
        "hvdfilter's compiled module _cpu cannot be loaded; build it with "
        f"'pip install --no-build-isolation .' in the source folder ({error})."
    ) from error

__all__ = ["cpu", "cuda", "kernels"]


@functools.cache
def cuda() -> ModuleType | None:
    """The CUDA module, or None where it was not built, does not load, or there is no GPU."""
    if not torch.cuda.is_available():
        return None
    try:
        from hvdfilter import _cuda
    except ImportError:
        return None
    return _cuda


def kernels() -> dict[str, str]:
    """Which kernels are in use, for people to read: device to instruction set or its absence."""
    return {"cpu": cpu.instruction_set(), "cuda": "loaded" if cuda() is not None else "not loaded"}
