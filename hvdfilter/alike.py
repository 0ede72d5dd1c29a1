"""Whether all ranks are alike: the same versions, the same data; compared by a digest.

Costs one allreduce of 16 bytes where they are, whatever the number of ranks. It looks at what a
rank brings, and never at what a launcher says.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from hvdfilter import native
from hvdfilter.agreement import collective as seam
from hvdfilter.errors import InputError, WorldError, on_all_ranks
from hvdfilter.installation import sources_digest
from hvdfilter.version import __version__

ONE_ENVIRONMENT = "use one environment on all hosts, such as a shared folder or the same wheels"
_SHOWN = 4  # values of what differs


def refuse_unlike(
    collective: seam.Collective,
    facts: Mapping[str, str],
    remedy: str,
    kind: type[Exception] = InputError,
) -> None:
    """Collective. Raise `kind` on every rank, unless all of them bring the same facts.

    facts: name to value, the same names everywhere, the likeliest cause of a difference first. The
    sentence has the first that differs, its values, and for each a host and rank that bring it.
    """
    if collective.size == 1:
        return
    text = json.dumps(facts)
    # 63 bits, so that the complement's maximum is the minimum of the digest.
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    highest, lowest = collective.allreduce(np.array([digest, ~digest], np.int64), "max")
    if highest == ~lowest:
        return
    mine = json.dumps([platform.node(), dict(facts)]).encode()
    everyone = collective.allgather(np.frombuffer(mine, np.uint8))
    raise on_all_ranks(f"{_difference(everyone)}: {remedy}", kind)


def _difference(everyone: list[np.ndarray]) -> str:
    brought = [json.loads(part.tobytes()) for part in everyone]
    for name in brought[0][1]:
        seen: dict[str, str] = {}
        for rank, (host, facts) in enumerate(brought):
            seen.setdefault(facts.get(name, "none"), f"on {host} (rank {rank})")
        if len(seen) > 1:
            told = [f"{value or 'none'} {where}" for value, where in seen.items()]
            more = ["..."] if len(told) > _SHOWN else []
            return f"{name} differs between ranks: {', '.join(told[:_SHOWN] + more)}"
    return "ranks compare different facts, so their versions of hvdfilter differ"


def refuse_other_versions(collective: seam.Collective) -> None:
    """Collective. `WorldError` on every rank where one has another version of what must agree."""
    facts = {
        "hvdfilter": f"{__version__} ({sources_digest()})",
        "torch": torch.__version__,
        "Horovod": _version("horovod"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }
    if collective.name == "mpi":
        facts["MPI"] = (seam.mpi_facts() or {}).get("library", "")
    refuse_unlike(collective, facts, ONE_ENVIRONMENT, WorldError)


def refuse_other_builds(collective: seam.Collective) -> None:
    """Collective. `WorldError` on every rank where one has loaded another build of the kernels."""
    facts = {"hvdfilter's compiled module": _compiled()}
    refuse_unlike(collective, facts, ONE_ENVIRONMENT, WorldError)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _compiled() -> str:
    """A digest of the CPU's module, which every rank uses."""
    path = getattr(native.cpu(), "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8] if path else ""
