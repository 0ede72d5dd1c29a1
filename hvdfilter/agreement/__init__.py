"""Agree: scores on every rank become one verified keep-mask, the same bits on any world size."""

from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.book import ScoreBook
from hvdfilter.agreement.calls import Call
from hvdfilter.agreement.collective import (
    HorovodCollective,
    MPICollective,
    SoloCollective,
    TorchCollective,
    mpi_collective,
    mpi_world_size,
)
from hvdfilter.agreement.draws import Draws, merge_draws
from hvdfilter.agreement.local import LocalMask, merge_local
from hvdfilter.agreement.mask import KeepMask
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.select import agree, merge, select
from hvdfilter.agreement.strata import Strata, merge_strata

__all__ = [
    "Blocks",
    "Call",
    "Collective",
    "Draws",
    "HorovodCollective",
    "KeepMask",
    "LocalMask",
    "MPICollective",
    "ScoreBook",
    "SoloCollective",
    "Strata",
    "TorchCollective",
    "agree",
    "merge",
    "merge_draws",
    "merge_local",
    "merge_strata",
    "mpi_collective",
    "mpi_world_size",
    "select",
]
