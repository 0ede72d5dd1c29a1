"""Start-up, done once and checked once: Horovod, MPI and the device of this rank.

`init()` asks Horovod and MPI who is here (never the environment, which not every launcher sets),
refuses worlds that disagree, and hands out one `World`. It trains nothing and moves no data; with
neither Horovod nor MPI installed it returns a world of one.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import torch

from hvdfilter import native
from hvdfilter.agreement import collective as seam
from hvdfilter.errors import WorldError

# Set by launchers for every rank they start. Never believed for rank or size: only used to notice
# that many ranks were started and each of them thinks it is alone.
LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True)
class World:
    """The ranks of this job, seen from one of them."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    collective: seam.Collective = field(repr=False)


_current: World | None = None


def init() -> World:
    """Start Horovod and MPI, check that they agree, and choose this rank's device.

    Idempotent: every call returns the same `World`. Raises `WorldError`, on every rank, when
    Horovod and MPI see different worlds, or when a launcher started several ranks but none of
    them can talk to the others; `InstallError`, on every rank, when a compiled module of any rank
    does not load.
    """
    global _current
    if _current is None:
        _current = _start()
    return _current


def started() -> bool:
    """Whether `init` has run in this process."""
    return _current is not None


def current() -> World:
    """The world of this process; starts it if need be."""
    return init()


def horovod() -> ModuleType | None:
    """`horovod.torch`, or None where Horovod is not installed."""
    try:
        return importlib.import_module("horovod.torch")
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.split(".")[0] == "horovod":
            return None
        raise


def _start() -> World:
    # MPI first, through mpi4py: whoever starts MPI also ends it, and Horovod would do so as soon as
    # one rank exits, under the feet of the others.
    seam.mpi_world_size()
    hvd = horovod()
    if hvd is not None:
        hvd.init()
    collective = _collective(hvd)
    _refuse_lonely_ranks(collective.size)
    with collective.errors_shared():
        native.cpu()
        native.cuda()
    local_rank = hvd.local_rank() if hvd is not None else collective.local()[0]
    _share_cores(collective)
    return World(collective.rank, collective.size, local_rank, _device(local_rank), collective)


def _collective(hvd: ModuleType | None) -> seam.Collective:
    """The back end that really spans the ranks, chosen by asking each of them."""
    if hvd is not None and hvd.size() > 1 and not hvd.mpi_enabled():
        return seam.HorovodCollective(hvd)  # gloo: mpi4py would see P worlds of one
    ranks = seam.mpi_world_size()
    if hvd is not None and hvd.size() != ranks:
        raise WorldError(
            f"Horovod sees {hvd.size()} ranks but MPI (mpi4py) sees {ranks}: build Horovod and "
            "mpi4py against the MPI whose launcher started this job (`hvdfilter doctor` shows "
            "which each uses)"
        )
    return seam.mpi_collective() if ranks > 1 else seam.SoloCollective()


def _refuse_lonely_ranks(size: int) -> None:
    if size > 1:
        return
    for name in LAUNCHER_SIZES:
        started = os.environ.get(name, "1")
        if started.isdigit() and int(started) > 1:
            raise WorldError(
                f"the launcher started {started} ranks ({name}) but each of them sees a world of "
                "one: install mpi4py and Horovod built against the MPI of this launcher "
                "(`hvdfilter doctor` shows what is there)"
            )


def _share_cores(collective: seam.Collective) -> None:
    """Divide cores between the ranks that may run on the same ones, unless the user has done so."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    everyone = set(range(os.cpu_count() or 1))
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everyone
    place = hashlib.sha256(f"{platform.node()} {sorted(mine)}".encode()).digest()[:8]
    places = collective.allgather(np.frombuffer(place, np.int64))
    sharing = sum(int(other[0] == np.frombuffer(place, np.int64)[0]) for other in places)
    torch.set_num_threads(max(1, len(mine) // sharing))


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
