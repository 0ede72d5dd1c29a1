"""Collectives that ranks call unalike: both calls named on all ranks, nobody left waiting."""

from __future__ import annotations

import re
import textwrap

import pytest

from tests.distributed.launch import check_ranks, run_ranks

pytestmark = pytest.mark.distributed

# Every rank prints what it met; a rank that another one ends prints nothing.
FRAME = """
import sys, numpy as np, torch, hvdfilter as hf
world = hf.init()
rank = world.rank
def filter_(policy="kakurenbo", **more):
    return hf.Filter(40, policy, epochs=3, **more)
def step(filt, ids):
    ids = torch.as_tensor(ids)
    return filt.loss(torch.ones(len(ids), 3, requires_grad=True), ids % 3, ids)
def epoch(filt, number, steps=4):
    filt.begin_epoch(number)
    for ids in np.array_split(list(filt.sampler()), 4)[:steps]:
        step(filt, ids)
try:
{body}
    print(f"<{{rank}} finished>", flush=True)
except (hf.InputError, hf.WorldError) as error:
    print(f"<{{rank}} {{type(error).__name__}}: {{error}}>", flush=True)
"""


def program(body: str) -> str:
    return FRAME.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    "))


UNALIKE = {
    "state_dict on rank 0 only": (
        "filt = filter_(); epoch(filt, 0)\nif rank == 0: filt.state_dict()\nfilt.begin_epoch(1)",
        "WorldError: rank 0 called state_dict() while rank 1 called begin_epoch(1): state_dict is "
        "collective: call it on all ranks, save on rank 0",
    ),
    "load_state_dict on rank 1 only": (
        "filt = filter_(); saved = filt.state_dict()\n"
        "if rank == 1: filt.load_state_dict(saved)\n"
        "filt.begin_epoch(0)",
        "WorldError: rank 0 called begin_epoch(0) while rank 1 called load_state_dict(): "
        "load_state_dict is collective: call it on all ranks (what rank 0 holds counts)",
    ),
    "a Filter on rank 0 only": (
        "if rank == 0: extra = filter_()\nhf.agree(np.ones(0, np.float32), [], 40, 3)",
        "WorldError: rank 0 called Filter() while rank 1 called agree(): Filter is collective: "
        "make the same filters, in one order, on all ranks",
    ),
    "a rescore skipped": (
        "filt = filter_(); epoch(filt, 0)\n"
        "if rank != 1: filt.rescore(torch.nn.Identity(), [])\n"
        "filt.end_epoch()",
        "WorldError: rank 0 called rescore() while rank 1 called end_epoch(): rescore is "
        "collective: call it on all ranks, also where a rank has nothing to re-score",
    ),
    "different epochs": (
        "filt = filter_(); filt.begin_epoch(0); filt.begin_epoch(1 + (rank == 1))",
        "InputError: rank 0 called begin_epoch(1) while rank 1 called begin_epoch(2): give all "
        "ranks the same epoch",
    ),
    "filters in another order": (
        "a, b = filter_(), filter_()\n(b if rank == 1 else a).begin_epoch(0)",
        "InputError: rank 0 called begin_epoch(0) of filter 1 while rank 1 called begin_epoch(0) "
        "of filter 2: use several filters in one order on all ranks",
    ),
    "an epoch that the run has not": (
        "filter_().begin_epoch(3 if rank == 1 else 0)",
        "InputError: rank 0 called begin_epoch(0) while rank 1 called begin_epoch(3): give all "
        "ranks the same epoch",
    ),
    "an epoch that the run has not, on all ranks": (
        "filter_().begin_epoch(-1)",
        "InputError: rank 0: epoch -1 is none of the 3 that Filter was given",
    ),
    "a policy misspelt on one rank": (
        'filter_("kakurenbo" if rank == 0 else "kakurembo")',
        "InputError: rank 1: unknown policy 'kakurembo'; did you mean kakurenbo?",
    ),
    "an early break": (
        "filt = filter_(); epoch(filt, 0, steps=3 if rank == 0 else 4)\nfilt.end_epoch()\n",
        "WorldError: rank 0 called end_epoch() while rank 1 is in a training step: end_epoch is "
        "collective: call it on all ranks alike",
    ),
}


@pytest.mark.parametrize("case", UNALIKE)
def test_calls_that_do_not_match_are_named_on_every_rank(case: str) -> None:
    body, sentence = UNALIKE[case]
    out = check_ranks(program(body), 2, timeout=40)
    told = sorted(re.findall(r"<(\d) (.*?)>", out))
    assert [rank for rank, _ in told] == ["0", "1"], out
    assert all(text.startswith(sentence) for _, text in told), out


def test_three_ranks_one_astray_all_raise() -> None:
    body, _ = UNALIKE["state_dict on rank 0 only"]
    out = check_ranks(program(body), 3, timeout=40)
    assert sorted(re.findall(r"<(\d) WorldError: rank 0 called state_dict", out)) == ["0", "1", "2"]


def test_a_break_that_leaves_others_in_an_allreduce_of_gradients_ends_the_job() -> None:
    # Rank 1 waits for gradients that rank 0 will not send: it can't raise, so it must be ended.
    source = """
        import torch, horovod.torch as hvd, hvdfilter as hf
        world = hf.init()
        model = torch.nn.Linear(4, 3)
        optimizer = hvd.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1), named_parameters=model.named_parameters())
        filt = hf.Filter(60, "kakurenbo", epochs=2)
        for epoch in range(2):
            filt.begin_epoch(epoch, optimizer)
            for number, ids in enumerate(torch.tensor(list(filt.sampler())).split(5)):
                if world.rank == 0 and number == 2:
                    break
                optimizer.zero_grad()
                filt.loss(model(torch.ones(len(ids), 4)), ids % 3, ids).backward()
                optimizer.step()
    """
    done = run_ranks(source, 2, timeout=40)
    assert done.returncode != 0
    said = "rank 0 called begin_epoch(1) while rank 1 is in a training step: take the same epochs"
    assert said in done.stderr and "TRUNCATE" not in done.stderr


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_that_waits_alone_says_for_whom_and_ends_the_job(ranks: int) -> None:
    # The last rank never comes; all others wait for it, and must not be taken for absent.
    body = """
        filt = filter_()
        world.collective.meetings.patience = 3.0
        if rank == world.size - 1:
            import time; time.sleep(900)
        filt.state_dict()
    """
    done = run_ranks(program(body), ranks, timeout=50)
    assert done.returncode != 0
    waited = f"has waited 3 s in state_dict() for rank {ranks - 1}, which has not come: state_dict "
    assert waited in done.stderr and "finished" not in done.stdout
    assert set(re.findall(r"in state_dict\(\) (.*?), which", done.stderr)) == {
        f"for rank {ranks - 1}"
    }


def test_a_rank_that_leaves_while_others_agree_ends_the_job() -> None:
    body = """
        world.collective.meetings.patience = 3.0
        if rank == 0:
            hf.agree(np.ones(40, np.float32), np.arange(40), 40, 3)
    """
    done = run_ranks(program(body), 2, timeout=50)
    assert done.returncode != 0 and "<0 " not in done.stdout
    waited = "rank 0 has waited 3 s in agree() for rank 1, which has not come: agree is collective"
    assert waited in done.stderr


def test_a_rank_that_leaves_a_job_whose_mpi_horovod_started_ends_it() -> None:
    # Horovod then ends MPI on all ranks, under the feet of the one that waits.
    source = """
        import time
        import torch, horovod.torch as hvd
        hvd.init()
        import hvdfilter as hf
        filt = hf.Filter(40, epochs=3)
        filt.begin_epoch(0)
        filt.loss(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1]), torch.tensor([3, 4]))
        if hvd.rank() == 0:
            filt.state_dict()
            print("saved")
        time.sleep(0.5)  # or the step of rank 0, too, would be without the other rank
    """
    done = run_ranks(source, 2, timeout=50, env={"HVDFILTER_PATIENCE": "20"})
    assert done.returncode != 0 and "saved" not in done.stdout
    assert "rank 0 is in state_dict(), but another rank has left" in done.stderr, done.stderr
    assert "call it on all ranks, save on rank 0" in done.stderr
    assert "MPI_Test" not in done.stderr and "signal" not in done.stderr, done.stderr


def test_a_first_filter_on_one_rank_only_ends_the_job() -> None:
    # Before any channel is there: Horovod and MPI themselves wait for the other rank.
    source = """
        import time, hvdfilter as hf
        from mpi4py import MPI
        if MPI.COMM_WORLD.Get_rank() == 1:
            time.sleep(900)
        hf.Filter(40, epochs=3)
    """
    done = run_ranks(source, 2, timeout=50, env={"HVDFILTER_PATIENCE": "3"})
    waited = (
        "waited 3 s in hf.init() for other ranks, which have not come: hf.init(), the first Filter"
    )
    assert done.returncode != 0 and waited in done.stderr


def test_two_filters_at_a_time_and_a_hundred_in_turn() -> None:
    # Each step goes through both; the masks must be those of a filter that is alone.
    body = """
        def masks(filters):
            found = []
            for number in range(3):
                orders = []
                for filt in filters:
                    filt.begin_epoch(number)
                    orders.append(np.array_split(list(filt.sampler()), 4))
                    found.append(filt.mask.digest)
                for at in range(4):
                    for filt, order in zip(filters, orders):
                        step(filt, order[at])
            return found
        both = masks([filter_("random", seed=1), filter_("random", seed=2)])
        assert both[::2] == masks([filter_("random", seed=1)])
        assert both[1::2] == masks([filter_("random", seed=2)])
        assert len(set(both)) == 6
        for number in range(100):  # each leaves its last step's message behind
            epoch(filter_("random", seed=number), 0)
        import gc
        gc.collect()
        filter_().state_dict()
    """
    out = check_ranks(program(body), 2, timeout=60)
    assert out.count("finished") == 2, out
