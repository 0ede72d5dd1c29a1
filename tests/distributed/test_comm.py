"""hf.init(comm=...): a part of the ranks that were started, and combinations that cannot be."""

from __future__ import annotations

import re

import pytest

from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

# Three ranks; rank 1 stands apart. What each meets is printed once a rank.
FRAME = """
import horovod.torch as hvd, numpy as np, torch, hvdfilter as hf
from mpi4py import MPI
rank = MPI.COMM_WORLD.Get_rank()
part = MPI.COMM_WORLD.Split(int(rank == 1))
def masks(seed):
    filt = hf.Filter(60, "random", epochs=3, seed=seed)
    return [(filt.begin_epoch(epoch).digest[:6], len(filt.sampler())) for epoch in range(3)]
try:
    {body}
except (hf.InputError, hf.WorldError) as error:
    print(f"<{{rank}} {{type(error).__name__}}: {{error}}>", flush=True)
"""
TELL = "world = hf.init(); print(f'<{rank} {world.rank} of {world.size}, {masks(7)}>', flush=True)"


def told(*lines: str, ranks: int = 3) -> dict[str, str]:
    """What each rank printed."""
    program = FRAME.format(body="\n    ".join(lines))
    return dict(re.findall(r"<(\d) (.*?)>", check_ranks(program, ranks, timeout=60)))


@pytest.fixture(scope="module")
def expected() -> dict[int, str]:
    """The masks of a whole world of one and of two ranks, and the length of a shard in each."""
    whole = {n: told(TELL, ranks=n)["0"] for n in (1, 2)}
    return {n: text.partition(", ")[2] for n, text in whole.items()}


@pytest.mark.parametrize(
    "lines",
    [
        ("hf.init(comm=part)",),  # which starts Horovod over it
        ("hvd.init(comm=part)", "hf.init(comm=part)"),
    ],
    ids=["hf starts Horovod", "Horovod was started"],
)
def test_each_part_of_a_split_world_filters_for_itself(
    lines: tuple[str, ...], expected: dict[int, str]
) -> None:
    assert told(*lines, "assert hvd.size() == part.size", TELL) == {
        "0": f"0 of 2, {expected[2]}",
        "1": f"0 of 1, {expected[1]}",
        "2": f"1 of 2, {expected[2]}",
    }


def test_a_process_set_filters_for_itself(expected: dict[int, str]) -> None:
    lines = (
        "sets = [hvd.ProcessSet([0, 2]), hvd.ProcessSet([1])]",
        "hvd.init(process_sets=sets)",
        "hf.init(comm=sets[rank == 1])",
        TELL,
    )
    assert told(*lines) == {
        "0": f"0 of 2, {expected[2]}",
        "1": f"0 of 1, {expected[1]}",
        "2": f"1 of 2, {expected[2]}",
    }


WRONG = {
    "Horovod has a part, hf.init was not told": (
        # The ranks in a part of two know that it is one; a part of one might be a wrong build.
        ("hvd.init(comm=part)", "hf.init()"),
        "WorldError: Horovod sees 2 ranks but MPI (mpi4py) sees 3, so hvd.init was given a part of "
        "them: call hf.init(comm=...) with the communicator that hvd.init was given, before the "
        "first Filter",
        ["0", "2"],
    ),
    "Horovod has all, hf.init a part": (
        ("hvd.init()", "hf.init(comm=part)"),
        "WorldError: rank 0: Horovod spans 3 ranks (this is its rank 0) but MPI's communicator "
        "here 2 (rank 0): give hvd.init the same communicator, or hf.init the hvd.ProcessSet "
        "that the optimizer averages over",
        ["0", "2"],
    ),
    "Horovod numbers them otherwise": (
        ("hvd.init(comm=MPI.COMM_WORLD.Split(0, -rank))", "hf.init()"),
        "WorldError: rank 0: Horovod spans 3 ranks (this is its rank 2) but MPI's communicator "
        "here 3 (rank 0): call hf.init(comm=...) with the communicator that hvd.init was given",
        ["0", "1", "2"],
    ),
    "a process set of others": (
        ("others = hvd.ProcessSet([0, 2])", "hvd.init(process_sets=[others])")
        + ("if rank == 1: hf.init(comm=others)",),
        "InputError: rank 1 is not in the process set [0, 2] that hf.init was given: call "
        "hf.init(comm=...) only on its ranks, or with a set that this rank is in",
        ["1"],
    ),
    "too late": (
        ("hf.Filter(60, epochs=1)", "hf.init(comm=part)"),
        "WorldError: hf.init(comm=...) comes too late, the world has been chosen: call it before "
        "hf.init(), the first hf.Filter and the first hf.agree",
        ["0", "1", "2"],
    ),
    "no communicator": (
        ("hf.init(comm=[0, 2])",),
        "InputError: hf.init(comm=[0, 2]): give an mpi4py communicator that this rank is in, a "
        "hvd.ProcessSet, or a group of the initialised torch.distributed",
        ["0", "1", "2"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_combination_is_called_what_it_is(case: str) -> None:
    lines, sentence, ranks = WRONG[case]
    said = told(*lines)
    assert {rank: said.get(rank) for rank in ranks} == dict.fromkeys(ranks, sentence)


def test_a_filter_may_come_before_the_scripts_own_init(expected: dict[int, str]) -> None:
    first = "found = masks(7); hvd.init(); assert hvd.size() == 2"
    said = told(first, "print(f'<{rank} {found}>', flush=True)", ranks=2)
    assert said == {"0": expected[2], "1": expected[2]}
