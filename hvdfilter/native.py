"""The compiled modules, loaded at first use: `cpu()`, and `cuda()` where there is a GPU.

The one place that loads them. Holds no wrappers: callers pass addresses as csrc/README.md says.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType

# torch first: its OpenMP run-time is the one that the kernels take their threads from.
import torch

from hvdfilter.errors import InstallError
from hvdfilter.installation import build_again, reason

__all__ = ["KERNELS", "cpu", "cuda", "kernels"]


@functools.cache
def cpu() -> ModuleType:
    """The CPU module; `InstallError` with the reason where it is missing or broken."""
    return _load("_cpu", build_again())


@functools.cache
def cuda() -> ModuleType | None:
    """The CUDA module; None without a GPU or where it was not built.

    One that was built and does not load is an `InstallError`: nobody may take the CPU for the GPU.
    """
    if not torch.cuda.is_available() or importlib.util.find_spec("hvdfilter._cuda") is None:
        return None
    return _load("_cuda", build_again("HVDFILTER_CUDA=1 "))


def _load(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(f"hvdfilter.{name}")
    except ImportError as error:
        raise InstallError(
            f"hvdfilter's compiled module {name} cannot be loaded ({reason(error)}): {remedy}"
        ) from error


# Device to what says, for people to read, which kernels are in use there.
KERNELS: dict[str, Callable[[], str]] = {
    "cpu": lambda: cpu().instruction_set(),
    "cuda": lambda: "not loaded" if cuda() is None else "loaded",
}


def kernels() -> dict[str, str]:
    """Which kernels are in use: device to instruction set or its absence."""
    return {device: ask() for device, ask in KERNELS.items()}
