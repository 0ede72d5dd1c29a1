"""What launchers leave in the environment of the ranks they start.

Never believed for rank or size, which libraries are asked for: only used to notice that several
ranks were started and each of them thinks it is alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# How many ranks, all of them or those of this host.
SIZES = (
    "OMPI_COMM_WORLD_SIZE",  # Open MPI's mpirun
    "PMI_SIZE",  # MPICH, Intel MPI, Cray PALS
    "MV2_COMM_WORLD_SIZE",  # MVAPICH
    "MPI_LOCALNRANKS",
    "PALS_LOCAL_SIZE",
    "JSM_NAMESPACE_SIZE",  # LSF's jsrun
    "FLUX_JOB_SIZE",
    "SLURM_STEP_NUM_TASKS",
    "HOROVOD_SIZE",
    "WORLD_SIZE",  # torchrun, and scripts that do without
)
# Which rank this is: from the second on there are several, whether or not a size is told.
RANKS = ("PMIX_RANK", "PALS_RANKID")


def started_ranks(environ: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """How many ranks the launcher says it has started, at least, and the variable that says so.

    (1, "") where none says anything.
    """
    most, said_by = 1, ""
    for name in (*SIZES, *RANKS):
        text = environ.get(name, "")
        if text.isdigit() and (count := int(text) + (name in RANKS)) > most:
            most, said_by = count, name
    return most, said_by


def elastic_job(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether Horovod's elastic launcher started this process: ranks may join and leave."""
    return environ.get("HOROVOD_ELASTIC") == "1"


def torchrun_ranks(environ: Mapping[str, str] = os.environ) -> int:
    """How many ranks torchrun started, this one among them; 1 where it was not torchrun."""
    size = environ.get("WORLD_SIZE", "")
    return int(size) if "TORCHELASTIC_RUN_ID" in environ and size.isdigit() else 1
