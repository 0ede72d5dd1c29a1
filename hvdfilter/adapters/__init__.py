"""Adapters: a few lines each that let a library's own training loop train what a filter keeps.

A module named as a library imports it, and is imported by nothing of hvdfilter: only who asks for
it needs that library. They score nothing and agree on nothing; that is the filter's.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from hvdfilter.errors import InputError, InstallError
from hvdfilter.filter import Filter

# The oldest release of each library that its adapter was tried with.
TRIED = {"lightning": "2.6", "transformers": "5.23", "accelerate": "1.15"}


def library(adapter: str, *names: str) -> ModuleType:
    """The module of `names` that the process uses already, else the first that can be imported.

    adapter: who needs it. Raises `InstallError` saying what to install where there is none.
    """
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
                raise
    package = _package(names[-1])
    raise InstallError(
        f"hvdfilter.adapters.{adapter} needs {package}, which is not installed: "
        f"pip install {package}"
    )


def require(adapter: str, module: ModuleType, owner: Any, *names: str) -> None:
    """Raise `InstallError` where `owner` lacks a member that `adapter` leans on.

    For members that a release may drop without a word. module: of the library. owner: an object, or
    a function, whose parameters are then meant.
    """
    found = set(dir(owner))
    if code := getattr(owner, "__code__", None):
        found = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    if missing := [name for name in names if name not in found]:
        name = getattr(owner, "__qualname__", type(owner).__qualname__)
        raise unknown_release(adapter, module, f"{missing[0]!r} of {name}")


def unknown_release(adapter: str, module: ModuleType, what: str) -> InstallError:
    """The error of a release that lacks `what`, which an adapter leans on."""
    package = _package(module.__name__)
    version = getattr(sys.modules[module.__name__.split(".")[0]], "__version__", "as installed")
    return InstallError(
        f"hvdfilter.adapters.{adapter} leans on {what}, which {package} {version} has not: "
        f"install a release that it was tried with, of which {TRIED[adapter]} is the oldest"
    )


def check_length(dataset: Any, filt: Filter) -> None:
    """Raise `InputError` for a training set of another length than `filt` was made for."""
    if hasattr(dataset, "__len__") and len(dataset) != filt.num_samples:
        raise InputError(
            f"the training set has {len(dataset)} samples and the filter was made for "
            f"{filt.num_samples}: hf.Filter(len(train_set), ...), with the same set on every rank"
        )


def check_whole(parts: int) -> None:
    """Raise `InputError` where so many ranks hold one model in parts, and need the same batches."""
    if parts > 1:
        raise InputError(
            f"{parts} ranks hold one model in parts and must be given the same batches, and the "
            "filter gives each rank its own: leave out tensor, context and sequence parallelism"
        )


def _package(module: str) -> str:
    return module.split(".")[0].replace("_", "-")
