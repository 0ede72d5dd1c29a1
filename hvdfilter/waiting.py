"""How an idle thread waits: by spinning, or by giving way to whoever has work. Chosen on import.

Two kinds spin. torch's OpenMP threads do, between parallel loops and at their ends, by default for
milliseconds: beside other load on the same cores a thread then waits for one that it keeps from
running. libgomp reads its limit when torch loads it.

From `hvd.init()` on, Horovod's own thread sits in blocking MPI calls, which spin unless told
otherwise: where ranks and their threads fill the cores, that takes nearly half of the compute. Open
MPI gives way between two looks at the network if an environment variable says so before `MPI_Init`.
Other MPIs do not read it. Only speed depends on the choice, so the launcher's word is good enough
for it; rank and size are never taken from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

SPINS = "GOMP_SPINCOUNT"
# Some 10 to 50 us: about the gap between two loops of a small network, and short
# beside the milliseconds for which the system takes a core away.
FEW_SPINS = "1000"
OPENMP_CHOICES = (SPINS, "OMP_WAIT_POLICY")  # the user's own
YIELD = "OMPI_MCA_mpi_yield_when_idle"
USER_FILE = Path(".openmpi", "mca-params.conf")  # below the home folder
# How many ranks a launcher started on this host; the first that is set counts, since mpirun may run
# inside a step of Slurm's. Slurm lists all hosts ("4(x2),3"): the fullest is taken.
LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "JSM_NAMESPACE_LOCAL_SIZE",
    "SLURM_STEP_TASKS_PER_NODE",
)

_chosen = ""


def limit_spinning(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have torch's idle OpenMP threads sleep after a moment, unless the user has chosen.

    To be called before torch is imported; afterwards it changes nothing here.
    """
    if not any(name in environ for name in OPENMP_CHOICES):
        environ[SPINS] = FEW_SPINS


def choose_waiting(
    environ: MutableMapping[str, str] = os.environ,
    cores: int | None = None,
    launchers: int | None = None,
) -> str:
    """Have Open MPI give way when idle where ranks and threads leave it no core of its own.

    cores: that this process may use, launchers: that all ranks of this host may use; by default
    asked of the system. Nothing is set where the launcher does not say how many ranks there are, or
    where the user has chosen. Returns the choice and its reason in words, and keeps them for
    `chosen`.
    """
    global _chosen
    cores = available_cores() if cores is None else cores
    _chosen = _choose(environ, cores, max(cores, launchers or _launchers_cores(environ)))
    return _chosen


def chosen() -> str:
    """What was chosen when hvdfilter was imported, and why."""
    return _chosen


def spinning(environ: Mapping[str, str] = os.environ) -> str:
    """How long an idle thread of torch's spins, in words; GNU's OpenMP is the one that listens."""
    name = next((name for name in OPENMP_CHOICES if name in environ), None)
    if name is None:
        return "spins as its run-time does by itself"
    if (name, environ[name]) == (SPINS, FEW_SPINS):
        return f"sleeps after {FEW_SPINS} spins ({SPINS})"
    return f"as {name}={environ[name]} says"


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _launchers_cores(environ: Mapping[str, str]) -> int:
    """Cores of whoever started this rank: more than the rank's own where ranks are bound."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(os.getppid()))
    # Slurm's daemon is not confined to the job's share of the host.
    allocated = environ.get("SLURM_CPUS_ON_NODE", "")
    return min(cores, int(allocated)) if allocated.isdigit() else cores


def _choose(environ: MutableMapping[str, str], cores: int, launchers: int) -> str:
    if YIELD in environ:
        return f"as {YIELD}={environ[YIELD]} says"
    if (file := _chosen_in_a_file(environ)) is not None:
        return f"as {file} says"
    ranks = _local_ranks(environ)
    if ranks is None:
        return f"spins: no launcher says how many ranks run here (to give way, set {YIELD}=1)"
    # Bound to a socket each, two of four ranks share this one's cores.
    ranks = -(-ranks * cores // launchers)
    threads = _threads(environ) or max(1, cores // ranks)
    load = f"{ranks} x ({threads} + Horovod's) threads on {cores} cores"
    if ranks * (threads + 1) <= cores:
        return f"spins: {load}"
    environ[YIELD] = "1"
    return f"gives way: {load}"


def _chosen_in_a_file(environ: Mapping[str, str]) -> Path | None:
    """Open MPI's file of the user's settings if it names this one; a variable would overrule it."""
    file = Path(environ.get("HOME", "/")) / USER_FILE
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return None
    return file if re.search(r"^\s*mpi_yield_when_idle\b", text, re.MULTILINE) else None


def _local_ranks(environ: Mapping[str, str]) -> int | None:
    for name in LOCAL_RANKS:
        # The repetition "(x2)" is left out: it counts hosts.
        counts = re.findall(r"\d+", re.sub(r"\(x\d+\)", "", environ.get(name, "")))
        if counts:
            return max(1, *map(int, counts))
    return None


def _threads(environ: Mapping[str, str]) -> int:
    """OMP_NUM_THREADS, its first level; 0 where it is unset or no number."""
    first = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() else 0
