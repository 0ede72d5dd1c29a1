"""What clusters are told apart by, and their saved state: plain tensors, complete on rank 0.

It writes no file. A state that was saved in mid-epoch goes on with the same bits on as many ranks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hvdfilter.agreement import Collective
from hvdfilter.clustering.centres import Centres
from hvdfilter.clustering.picks import Picks
from hvdfilter.clustering.shares import Share
from hvdfilter.errors import InputError, on_all_ranks

NAMES = ("identity", "place", "table", "sigma", "floor", "tally", "sums", "picks", "ranks")
_WORDS = ("number", "seed", "clustered layers")


def check_options(number: int, seed: int) -> None:
    """Raises InputError for what is no number of clusters and no seed."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(f"number must be a whole number of at least 1, not {number!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 62:
        raise InputError(f"seed must be a whole number from 0 on, not {seed!r}")


def identity(shares: Sequence[Share], number: int, seed: int) -> Tensor:
    """int64 [3]: what all ranks, and a saved state, must have alike."""
    layout = ";".join(f"{share.name},{share.width}" for share in shares)
    return torch.tensor([number, seed, zlib.crc32(layout.encode())])


def check_alike(mine: Tensor, collective: Collective) -> None:
    """Collective. Raises InputError on all ranks where one has another identity than rank 0."""
    everyone = collective.allgather(mine.numpy())
    for rank, theirs in enumerate(everyone):
        odd = np.flatnonzero(theirs != everyone[0])
        if odd.size:
            raise on_all_ranks(
                f"rank {rank} has other {_WORDS[odd[0]]} of GradientClusters than rank 0"
            )


def pack(
    mine: Tensor,
    epoch: int,
    steps: int,
    centres: Centres,
    tally: Tensor,
    sums: Tensor,
    picks: Picks,
    collective: Collective,
) -> dict[str, Tensor]:
    """Collective. The saved state; tally and sums are those of all ranks together."""
    table = centres.table
    parts = picks.gather(centres.width, collective)
    everyone = collective.allgather(np.array([steps], np.int64))
    return {
        "identity": mine.clone(),
        "place": torch.tensor([epoch, int(centres.by_inner), centres.kin, int(table is not None)]),
        "table": torch.zeros(0, centres.width) if table is None else table.cpu().clone(),
        "sigma": centres.sigma.clone(),
        "floor": torch.tensor([centres.floor], dtype=torch.float64),
        "tally": tally.cpu().clone(),
        "sums": sums.cpu().clone(),
        "picks": torch.cat(parts),
        "ranks": torch.tensor([[int(s[0]), len(p)] for s, p in zip(everyone, parts, strict=True)]),
    }


def unpack(
    found: Mapping[str, Tensor], centres: Centres, picks: Picks, collective: Collective
) -> tuple[int, int]:
    """Fill the centres and this rank's candidates; the epoch and the steps of it so far."""
    epoch, by_inner, kin, started = (int(n) for n in found["place"])
    centres.sigma, centres.floor = found["sigma"], float(found["floor"])
    centres.freeze(found["table"] if started else None, bool(by_inner), kin)
    rank, ranks = collective.rank, found["ranks"]
    if len(ranks) == collective.size:
        picks.replace(found["picks"].split(ranks[:, 1].tolist())[rank])
        return epoch, int(ranks[rank, 0])
    picks.replace(found["picks"][rank :: collective.size])
    return epoch, int(ranks[:, 0].max())


def load(saved: Mapping[str, Tensor], mine: Tensor, collective: Collective) -> dict[str, Tensor]:
    """Collective. What rank 0 holds, on every rank; InputError if other clusters saved it."""
    with collective.errors_shared():
        if collective.rank == 0:
            if missing := [name for name in NAMES if name not in saved]:
                raise InputError(f"this is no state of GradientClusters: it has no {missing[0]!r}")
            odd = (saved["identity"].cpu() != mine).nonzero()
            if odd.numel():
                raise InputError(
                    f"the saved clusters have other {_WORDS[int(odd[0])]} than these: continue "
                    "with what the run was started with"
                )
    first = collective.rank == 0
    return {
        name: torch.from_numpy(
            collective.broadcast(saved[name].detach().cpu().numpy() if first else None)
        )
        for name in NAMES
    }
