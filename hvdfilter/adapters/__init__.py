"""Adapters: a few lines each that let a library's own training loop train what a filter keeps.

A module here imports its library, and is imported by nothing of hvdfilter: only who asks for it
needs that library. They score nothing and agree on nothing; that is the filter's.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from hvdfilter.errors import InstallError


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
    package = names[-1].split(".")[0].replace("_", "-")
    raise InstallError(
        f"hvdfilter.adapters.{adapter} needs {package}, which is not installed: "
        f"pip install {package}"
    )
