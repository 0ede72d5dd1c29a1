"""Which back end spans the ranks: chosen by asking each library, refused where they differ.

It starts nothing and imports no Horovod: that is `world`'s part. Nothing is read from the
environment but that there must be more ranks than are seen.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

from hvdfilter import launchers
from hvdfilter.agreement import collective as seam
from hvdfilter.errors import InputError, WorldError

SAME = "call hf.init(comm=...) with the communicator that hvd.init was given"


def torch_ranks() -> int:
    """How many ranks torch.distributed spans; 0 where it is not initialised."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0
    return int(distributed.get_world_size())


def by_torch(comm: Any) -> bool:
    """Whether torch.distributed spans the ranks; refuses where that cannot be told."""
    ranks, hvd = torch_ranks(), running_horovod()
    if ranks and isinstance(comm, torch.distributed.ProcessGroup):
        return True
    if comm is not None or ranks == 1:
        return False
    if ranks == 0:
        if (started := launchers.torchrun_ranks()) > 1:
            raise WorldError(
                f"torchrun started {started} ranks, but torch.distributed is not initialised: call "
                "torch.distributed.init_process_group() before hf.init() and the first hf.Filter"
            )
        return False
    if hvd is not None and hvd.size() != ranks:
        raise WorldError(
            f"torch.distributed spans {ranks} ranks but Horovod {hvd.size()}: initialise only the "
            "one that averages the gradients, or name its ranks by hf.init(comm=...)"
        )
    return hvd is None


def running_horovod() -> ModuleType | None:
    """Horovod where this script has initialised it already."""
    hvd = sys.modules.get("horovod.torch")
    return hvd if hvd is not None and hvd.is_initialized() else None


def choose(hvd: ModuleType | None, comm: Any = None, ran: bool = False) -> seam.Collective:
    """The back end that really spans the ranks, chosen by asking each of them.

    ran: Horovod had been initialised by somebody else.
    """
    if hvd is not None and isinstance(comm, getattr(hvd, "ProcessSet", ())):
        return _over_process_set(hvd, comm)
    if comm is not None:
        return _over_communicator(hvd, comm)
    if hvd is not None and hvd.size() > 1 and not hvd.mpi_enabled():
        return seam.HorovodCollective(hvd)  # gloo: mpi4py would see P worlds of one
    if launchers.elastic_job():
        return seam.SoloCollective(still_alone=_still_alone)
    ranks = seam.mpi_world_size()
    if hvd is not None and hvd.size() != ranks:
        raise WorldError(_disagreement(hvd.size(), ranks, ran))
    if ranks == 1:
        return seam.SoloCollective(still_alone=_still_alone)
    return _numbered_alike(hvd, seam.mpi_collective(), SAME)


def _disagreement(by_horovod: int, by_mpi: int, ran: bool) -> str:
    """Why Horovod and MPI may see different worlds, and the remedy."""
    seen = f"Horovod sees {by_horovod} ranks but MPI (mpi4py) sees {by_mpi}"
    build = (
        "build Horovod and mpi4py against the MPI whose launcher started this job (`hvdfilter "
        "doctor` shows which each uses)"
    )
    if not ran or by_horovod > by_mpi:
        return f"{seen}: {build}"
    if by_horovod > 1:
        return f"{seen}, so hvd.init was given a part of them: {SAME}, before the first Filter"
    return f"{seen}: {SAME}, or, if it was given none, {build}"


def _over_process_set(hvd: ModuleType, ranks: Any) -> seam.Collective:
    if ranks.process_set_id is None:
        raise InputError("this process set is unknown to Horovod: hvd.add_process_set comes first")
    if not ranks.included():
        raise InputError(
            f"rank {hvd.rank()} is not in the process set {ranks.ranks} that hf.init was given: "
            "call hf.init(comm=...) only on its ranks, or with a set that this rank is in"
        )
    if hvd.mpi_enabled() and hvd.size() == seam.mpi_world_size():
        return seam.mpi_collective(seam.mpi_subset(ranks.ranks))
    return seam.HorovodCollective(hvd, process_set=ranks)


def _over_communicator(hvd: ModuleType | None, comm: Any) -> seam.Collective:
    if not seam.is_communicator(comm):
        raise InputError(
            f"hf.init(comm={comm!r}): give an mpi4py communicator that this rank is in, a "
            "hvd.ProcessSet, or a group of the initialised torch.distributed"
        )
    remedy = (
        "give hvd.init the same communicator, or hf.init the hvd.ProcessSet that the optimizer "
        "averages over"
    )
    collective = _numbered_alike(hvd, seam.mpi_collective(comm), remedy)
    return collective if collective.size > 1 else seam.SoloCollective()


def _numbered_alike(
    hvd: ModuleType | None, collective: seam.Collective, remedy: str
) -> seam.Collective:
    """Collective. Refuses where Horovod has other ranks, or these in another order."""
    error = None
    if hvd is not None and (hvd.size(), hvd.rank()) != (collective.size, collective.rank):
        error = WorldError(
            f"Horovod spans {hvd.size()} ranks (this is its rank {hvd.rank()}) but MPI's "
            f"communicator here {collective.size} (rank {collective.rank}): {remedy}"
        )
    collective.share_error(error)
    return collective


def _still_alone() -> None:
    if (ranks := torch_ranks()) > 1:
        raise WorldError(
            f"torch.distributed has {ranks} ranks now, but was not initialised when the world was "
            "chosen: call init_process_group() before hf.init() and before the first Filter"
        )


def refuse_lonely_ranks(size: int) -> None:
    """Raise `WorldError` in a world of one where a launcher has started several ranks."""
    started, said_by = launchers.started_ranks()
    if size == 1 and started > 1:
        raise WorldError(
            f"the launcher started {started} ranks ({said_by}) but each of them sees a world of "
            "one: call torch.distributed.init_process_group() first if DDP trains them, else "
            "install mpi4py and Horovod built against the MPI of this launcher (`hvdfilter "
            "doctor` shows what is there)"
        )
