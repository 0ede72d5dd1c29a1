"""What the user asks of set-up by environment variables, which holds until something else is asked.

`HOROVOD_GPU_OPERATIONS=NCCL make setup` on a login node is said once; a plain `make demo` later
must not build for the CPU because the variable is gone. An empty value takes a wish back.
"""

import os
from collections.abc import MutableMapping

from scripts.horovod_build import BUILD_PREFIXES
from scripts.toolkit import HOMES

NAMES = ("HVDFILTER_CUDA", "MPICC", *HOMES)


def recall(
    noted: dict[str, str], environ: MutableMapping[str, str] = os.environ
) -> tuple[dict[str, str], list[str]]:
    """Put the wishes that were `noted` into the environment, unless it says something else there.

    Returns all wishes that hold now, and the names of those that were recalled.
    """
    said = {_subject(name) for name in environ if _is_wish(name)}
    recalled = {name: value for name, value in noted.items() if _subject(name) not in said}
    environ.update(recalled)
    for name in [name for name, value in environ.items() if _is_wish(name) and not value]:
        del environ[name]
    return dict(sorted((n, v) for n, v in environ.items() if _is_wish(n))), sorted(recalled)


def _is_wish(name: str) -> bool:
    return name in NAMES or name.startswith(BUILD_PREFIXES)


def _subject(name: str) -> str:
    """What a wish is about: two about one thing may contradict each other, so the later counts."""
    if name in HOMES:
        return "toolkit"
    if name == "HVDFILTER_CUDA" or name.startswith("HOROVOD_GPU_"):
        return "GPUs"
    return name.replace("HOROVOD_WITHOUT_", "HOROVOD_WITH_")
