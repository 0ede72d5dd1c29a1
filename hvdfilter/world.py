"""Start-up, done once and checked once: who is here, and the device of this rank.

`init()` asks torch.distributed, Horovod and MPI who is here (never the environment, which not every
launcher sets), refuses worlds that disagree, and hands out one `World`. It trains nothing and moves
no data; with none of the three at work it returns a world of one.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch

from hvdfilter import alike, launchers, native, spanning
from hvdfilter.agreement import collective as seam
from hvdfilter.agreement.meeting import patient
from hvdfilter.agreement.uncaught import end_job_on_uncaught
from hvdfilter.errors import WorldError


@dataclass(frozen=True)
class World:
    """The ranks of this job, seen from one of them."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    collective: seam.Collective = field(repr=False)


_current: World | None = None
_given: Any = None  # what `init` was asked to span


def init(comm: Any = None, *, elastic: bool = False) -> World:
    """Find the ranks of this job, check that all libraries see the same, choose this rank's device.

    comm: the ranks that train together, where they are not all that were started: an mpi4py
    communicator (Horovod is started over it, unless it runs over the same ranks already), a
    `hvd.ProcessSet`, or a process group of torch.distributed. Collective over those ranks.
    elastic: the caller starts anew when ranks join or leave, as `hvdfilter train` does; else a job
    of Horovod's elastic launcher is refused.

    Without `comm` it spans torch.distributed where that was initialised, else what Horovod and MPI
    span, which it starts if need be. Idempotent: every call returns the same `World`. Raises, on
    every rank: `WorldError` when libraries see different worlds, when a launcher started several
    ranks but none of them can talk to the others, when torchrun's script has not called
    `init_process_group` yet, or in an elastic job; `InputError` for a `comm` that is none;
    `InstallError` when a compiled module of any rank does not load.
    """
    global _current, _given
    if _current is None:
        if launchers.elastic_job() and not elastic:
            raise WorldError(
                "Horovod's elastic launcher started this job, and a filter can't follow ranks that "
                "join and leave: run 'hvdfilter train --elastic true', or this script under "
                "mpirun or 'horovodrun -np N'"
            )
        remedy = "hf.init(), the first Filter and the first agree are collective: call on all ranks"
        with patient("hf.init()", remedy, seam.abort_job):
            _current, _given = _start(comm), comm
    elif comm is not None and comm is not _given:
        raise WorldError(
            "hf.init(comm=...) comes too late, the world has been chosen: call it before "
            "hf.init(), the first hf.Filter and the first hf.agree"
        )
    return _current


def leave() -> None:
    """Shut Horovod down and forget its ranks: the next `init` meets others. For elastic jobs."""
    global _current, _given
    if (hvd := horovod()) is not None:
        hvd.shutdown()
    _current = _given = None


def started() -> bool:
    """Whether `init` has run in this process."""
    return _current is not None


def current() -> World:
    """The world of this process; starts it if need be."""
    return init()


def horovod_elastic() -> ModuleType:
    """Horovod's loop around training whose ranks change, with the errors that it knows."""
    return importlib.import_module("horovod.common.elastic")


def horovod() -> ModuleType | None:
    """`horovod.torch`, or None where Horovod is not installed."""
    try:
        return importlib.import_module("horovod.torch")
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.split(".")[0] == "horovod":
            return None
        raise


def _start(comm: Any) -> World:
    hvd = None
    if spanning.by_torch(comm):
        # MPI is left alone: below one srun, torchrun's ranks would all start as the same one.
        collective: seam.Collective = seam.TorchCollective(comm)
    else:
        # MPI first, through mpi4py: whoever starts MPI also ends it, and Horovod would do so as
        # soon as one rank exits, under the feet of the others.
        if not launchers.elastic_job():  # whose ranks never meet in MPI: each would be alone
            seam.mpi_world_size()
        ran, hvd = spanning.running_horovod() is not None, horovod()
        if hvd is not None and not ran:
            among = comm is not None and seam.is_communicator(comm)
            hvd.init(comm=comm if among else None)
        collective = spanning.choose(hvd, comm, ran)
    if comm is None and not launchers.elastic_job():  # there it says how many there were at first
        spanning.refuse_lonely_ranks(collective.size)
    if collective.name != "mpi":  # whose own function has done so
        end_job_on_uncaught(collective)
    alike.refuse_other_versions(collective)
    _share_cores(collective)
    with collective.errors_shared():
        native.cpu()
        native.cuda()
    alike.refuse_other_builds(collective)
    local_rank = hvd.local_rank() if hvd is not None else collective.local()[0]
    device = _device(local_rank, chosen=collective.name == "torch")
    return World(collective.rank, collective.size, local_rank, device, collective)


def _share_cores(collective: seam.Collective) -> None:
    """Divide cores between the ranks that may run on the same ones, unless the user has done so.

    Collective, whoever has: an ssh session may know less of the environment than the launcher.
    """
    everyone = set(range(os.cpu_count() or 1))
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everyone
    place = hashlib.sha256(f"{platform.node()} {sorted(mine)}".encode()).digest()[:8]
    host = hashlib.sha256(platform.node().encode()).digest()[:8]
    here = np.frombuffer(host + place, np.int64)
    hosts, places = collective.allgather_flat(here, [2] * collective.size).reshape(-1, 2).T
    if (hosts != here[0]).any():
        collective.host = platform.node()
    if "OMP_NUM_THREADS" not in os.environ:
        sharing = int((places == here[1]).sum())
        torch.set_num_threads(max(1, len(mine) // sharing))


def _device(local_rank: int, chosen: bool) -> torch.device:
    """This rank's device. chosen: a DDP script that has touched a GPU has chosen it by itself."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if chosen and torch.cuda.is_initialized():
        return torch.device("cuda", torch.cuda.current_device())
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
