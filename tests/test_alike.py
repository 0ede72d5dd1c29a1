"""Ranks that are not alike are refused on all of them, in one sentence that says who has what."""

from __future__ import annotations

import pytest

from tests.distributed.launch import check_ranks

# Rank 1 is on a host of its own and has another torch, then another build, then another thing.
PROGRAM = """
import platform
from hvdfilter.agreement.collective import mpi_collective
from hvdfilter import alike
from hvdfilter.errors import InputError, WorldError
over = mpi_collective()
odd = over.rank == 1
platform.node = lambda: f"node{over.rank}"
alike.refuse_other_versions(over)
alike.refuse_other_builds(over)
calls = over.calls
alike.refuse_unlike(over, {"a": "1", "b": "2"}, "mend it")
assert over.calls == calls + 1
def caught(kind, call, *args):
    try:
        call(*args)
    except kind as error:
        said = over.allgather(__import__("numpy").frombuffer(str(error).encode(), "uint8"))
        assert len({part.tobytes() for part in said}) == 1
        if over.rank == 0:
            print(error, getattr(error, "on_all_ranks", False))
    else:
        raise AssertionError("not refused")
caught(InputError, alike.refuse_unlike, over, {"a": "1", "b": f"{2 + odd}"}, "mend it")
caught(InputError, alike.refuse_unlike, over, {"a": f"{over.rank}"}, "mend it")
caught(InputError, alike.refuse_unlike, over, {"b" if odd else "a": "1"}, "mend it")
whole, alike._compiled = alike._compiled, lambda: "0123" if odd else "4567"
caught(WorldError, alike.refuse_other_builds, over)
alike._compiled, alike.sources_digest = whole, lambda: f"{odd:08d}"
caught(WorldError, alike.refuse_other_versions, over)
"""


@pytest.mark.distributed
def test_what_differs_is_named_with_its_hosts() -> None:
    """Three ranks, of which two agree: who differs is not always the first or the last."""
    said = check_ranks(PROGRAM, 3).splitlines()
    env = "use one environment on all hosts, such as a shared folder or the same wheels"
    assert said == [
        "b differs between ranks: 2 on node0 (rank 0), 3 on node1 (rank 1): mend it True",
        "a differs between ranks: 0 on node0 (rank 0), 1 on node1 (rank 1), "
        "2 on node2 (rank 2): mend it True",
        "a differs between ranks: 1 on node0 (rank 0), none on node1 (rank 1): mend it True",
        "hvdfilter's compiled module differs between ranks: 4567 on node0 (rank 0), "
        f"0123 on node1 (rank 1): {env} True",
        "hvdfilter differs between ranks: 0.1.0 (00000000) on node0 (rank 0), "
        f"0.1.0 (00000001) on node1 (rank 1): {env} True",
    ]


# OMP_NUM_THREADS on one rank only, as where ssh's sessions know less than the launcher's shell.
ENVIRONMENT = """
import os
from hvdfilter.agreement import collective as seam
if seam.mpi_world_size() and os.environ["OMPI_COMM_WORLD_RANK"] == "0":
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.pop("OMP_NUM_THREADS", None)
import numpy as np
import hvdfilter as hf
world = hf.init()
# An operation of another length: one that is a step behind would read it as its own.
print(len(world.collective.allgather(np.arange(5 + world.rank))))
"""


@pytest.mark.distributed
def test_an_environment_that_one_rank_has_alone_changes_nothing_for_the_others() -> None:
    assert check_ranks(ENVIRONMENT, 2).split() == ["2", "2"]
