"""hvdfilter: score every sample, agree on one global keep-mask, train on the pruned shards.

world  = hf.init()
scores = hf.score(logits, labels)
loss, scores = hf.cross_entropy(logits, labels)
mask   = hf.agree(keys, ids, num_samples, keep)
filt   = hf.Filter(num_samples, policy="kakurenbo", epochs=90)

A public name is imported when it is first used, so that `hvdfilter doctor` starts, and says what is
wrong, where torch or a compiled module is broken.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from hvdfilter.errors import InputError, InstallError, WorldError
from hvdfilter.installation import require_torch
from hvdfilter.mpi_home import find_mpi_home
from hvdfilter.version import __version__
from hvdfilter.waiting import choose_waiting, limit_spinning

if TYPE_CHECKING:
    from hvdfilter import losses, policies
    from hvdfilter.agreement import KeepMask
    from hvdfilter.clustering import GradientClusters
    from hvdfilter.data import Indexed
    from hvdfilter.features import feature_scores
    from hvdfilter.filter import Filter
    from hvdfilter.filter.sampler import ShardSampler
    from hvdfilter.scoring import GradNorm, Scores
    from hvdfilter.scoring.cross_entropy import cross_entropy
    from hvdfilter.scoring.linear import linear_cross_entropy
    from hvdfilter.scoring.score import score
    from hvdfilter.training.record import Record
    from hvdfilter.world import World, init

__all__ = [
    "Filter",
    "GradNorm",
    "GradientClusters",
    "Indexed",
    "InputError",
    "InstallError",
    "KeepMask",
    "Record",
    "Scores",
    "ShardSampler",
    "World",
    "WorldError",
    "__version__",
    "agree",
    "cross_entropy",
    "feature_scores",
    "init",
    "linear_cross_entropy",
    "losses",
    "policies",
    "score",
]


# What libgomp reads as torch is imported, and MPI as it starts, which may be a script's own
# `hvd.init()`: so as soon as hvdfilter is.
limit_spinning()
find_mpi_home(path=sys.path)
choose_waiting()

# The module in which each of the names above is found.
_HOMES = {
    "Filter": "filter",
    "GradNorm": "scoring",
    "GradientClusters": "clustering",
    "Indexed": "data",
    "KeepMask": "agreement",
    "Record": "training.record",
    "Scores": "scoring",
    "ShardSampler": "filter.sampler",
    "World": "world",
    "cross_entropy": "scoring",
    "feature_scores": "features",
    "init": "world",
    "linear_cross_entropy": "scoring.linear",
    "score": "scoring",
}


def __getattr__(name: str) -> Any:
    """Import a public name; from then on it is an ordinary attribute."""
    if name not in __all__:
        raise AttributeError(f"module 'hvdfilter' has no attribute {name!r}")
    require_torch()
    if name in ("losses", "policies"):
        return importlib.import_module(f"hvdfilter.{name}")
    value = getattr(importlib.import_module(f"hvdfilter.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, imported or not."""
    return sorted({*globals(), *__all__})


def agree(keys: Any, ids: Any, num_samples: int, keep: int, world: World | None = None) -> KeepMask:
    """Collective. The mask of the `keep` samples with the largest keys, the same on every rank.

    keys: float32 [n], NumPy array or CPU tensor. ids: integers [n]; over all ranks each id of
    [0, num_samples) exactly once, in any order. Ties are kept in ascending order of id, so the
    mask equals a stable sort by (key descending, id ascending) on any number of ranks. Raises
    `InputError` on every rank, naming the rank and the first offending id, for NaN keys, ids
    given twice or missing, or ranks that disagree on `num_samples` or `keep`.
    """
    from hvdfilter.agreement import Call, agree
    from hvdfilter.world import init

    collective = (world or init()).collective
    collective.meet(Call.AGREE)
    return agree(keys, ids, num_samples, keep, collective)
