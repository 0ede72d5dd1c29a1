"""hvdfilter: score every sample, agree on one global keep-mask, train on the pruned shards.

world  = hf.init()
scores = hf.score(logits, labels)
loss, scores = hf.cross_entropy(logits, labels)
mask   = hf.agree(keys, ids, num_samples, keep)
filt   = hf.Filter(num_samples, policy="kakurenbo", epochs=90)
"""

from __future__ import annotations

from typing import Any

from hvdfilter.mpi_home import find_mpi_home
from hvdfilter.waiting import choose_waiting, limit_spinning

# What libgomp reads as torch is imported, and MPI as it starts, which may be a script's own
# `hvd.init()`: so before anything else.
limit_spinning()
find_mpi_home()
choose_waiting()

from hvdfilter import policies
from hvdfilter.agreement import KeepMask
from hvdfilter.agreement import agree as _agree
from hvdfilter.data import Indexed
from hvdfilter.errors import InputError, WorldError
from hvdfilter.filter import Filter
from hvdfilter.scoring import GradNorm, Scores, cross_entropy, linear_cross_entropy, score
from hvdfilter.training.sampler import ShardSampler
from hvdfilter.version import __version__
from hvdfilter.world import World, init

__all__ = [
    "Filter",
    "GradNorm",
    "Indexed",
    "InputError",
    "KeepMask",
    "Scores",
    "ShardSampler",
    "World",
    "WorldError",
    "__version__",
    "agree",
    "cross_entropy",
    "init",
    "linear_cross_entropy",
    "policies",
    "score",
]


def agree(keys: Any, ids: Any, num_samples: int, keep: int, world: World | None = None) -> KeepMask:
    """Collective. The mask of the `keep` samples with the largest keys, the same on every rank.

    keys: float32 [n], NumPy array or CPU tensor. ids: integers [n]; over all ranks each id of
    [0, num_samples) exactly once, in any order. Ties are kept in ascending order of id, so the
    mask equals a stable sort by (key descending, id ascending) on any number of ranks. Raises
    `InputError` on every rank, naming the rank and the first offending id, for NaN keys, ids
    given twice or missing, or ranks that disagree on `num_samples` or `keep`.
    """
    return _agree(keys, ids, num_samples, keep, (world or init()).collective)
