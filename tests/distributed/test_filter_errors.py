"""One rank's error is every rank's error: bad batches, dying ranks, ranks that disagree."""

from __future__ import annotations

import re
import time

import pytest

from tests.distributed.launch import check_ranks, run_ranks

pytestmark = pytest.mark.distributed

# Every rank trains with real Horovod; rank 1 meets NaN logits for one id at its third step.
BAD_BATCH = """
import sys, torch, horovod.torch as hvd, hvdfilter as hf
world = hf.init()
kind = sys.argv[1]
model = torch.nn.Linear(4, 3)
optimizer = hvd.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), lr=0.1), named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
filt = hf.Filter(60, "kakurenbo", epochs=2)
try:
    for epoch in range(2):
        filt.begin_epoch(epoch, optimizer)
        ids = list(filt.sampler())
        for step in range(0, len(ids), 4):
            batch = torch.tensor(ids[step:step + 4])
            x, y = torch.ones(4, 4), batch % 3
            if world.rank == 1 and (step == 8 if kind != "last" else step + 4 >= len(ids)):
                bad = int(batch[2])
                if kind == "label":
                    y[2] = 7
                else:
                    x[2, 0] = float("nan")
                print(f"bad {bad} ", flush=True)
            optimizer.zero_grad()
            filt.loss(model(x), y, batch).backward()
            optimizer.step()
    print("finished", flush=True)
except hf.InputError as error:
    print(f"caught {world.rank} {error}", flush=True)
"""


@pytest.mark.parametrize("kind", ["nan", "label", "last"])
def test_a_bad_batch_on_one_rank_raises_on_all_and_names_the_id(kind: str) -> None:
    out = check_ranks(BAD_BATCH, 3, kind)
    # Ranks write to one pipe, and two lines may come out as one.
    bad = re.search(r"bad (\d+)", out)
    caught = sorted(re.findall(r"caught (\d) rank 1: sample id (\d+)", out))
    assert bad is not None and caught == [(rank, bad[1]) for rank in "012"], out
    assert "finished" not in out


def test_filters_that_disagree_are_refused_on_all_ranks() -> None:
    program = """
        import hvdfilter as hf
        world = hf.init()
        try:
            hf.Filter(100, "random", epochs=3, seed=world.rank // 2)
        except hf.InputError as error:
            print(f"{world.rank} {error}", flush=True)
    """
    out = check_ranks(program, 3)
    assert sorted(re.findall(r"(\d) rank 2: Filter was given", out)) == ["0", "1", "2"], out
    assert out.count("seed=1") == 3


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("ZeroDivisionError", "ZeroDivisionError: out of the blue"),
        ("hf.InputError", "hvdfilter: error: rank 1: out of the blue"),
    ],
)
def test_an_error_that_one_rank_meets_alone_ends_the_job(error: str, sentence: str) -> None:
    # The other rank waits in a collective; without an abort it would wait for ever.
    program = f"""
        import sys
        from dataclasses import replace
        import hvdfilter as hf
        from hvdfilter.cli import program
        def broken(options):
            here = hf.init()
            if here.rank == 1:
                raise {error}("out of the blue")
            here.collective.barrier()
            return 0
        program.COMMANDS = [
            replace(one, run=broken, first_rank=False) if one.name == "policies" else one
            for one in program.COMMANDS
        ]
        sys.exit(program.main(["policies"]))
    """
    started = time.monotonic()
    done = run_ranks(program, 2, timeout=40)
    assert done.returncode != 0 and sentence in done.stderr
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "options",
    ["", "backward_passes_per_step=2", "op=hvd.Adasum"],
    ids=["plain", "passes", "adasum"],
)
def test_rates_are_scaled_once_under_horovods_optimizer(options: str) -> None:
    # Horovod's step runs the original's inside it, so both fire the hooks; Adasum's runs it once
    # for each parameter, in the backward pass. SGD is linear in its rate: the reference is the
    # same run unscaled.
    program = f"""
        import torch, horovod.torch as hvd, hvdfilter as hf
        from hvdfilter.filter.rate import RateScale
        world = hf.init()
        def trained(factor):
            weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
            optimizer = hvd.DistributedOptimizer(
                torch.optim.SGD(weights, lr=0.5),
                named_parameters=[(f"w{{i}}.{{factor}}", w) for i, w in enumerate(weights)],
                {options}
            )
            scale = RateScale()
            scale.attach(optimizer)
            scale.scale = factor
            for _ in range(2):
                optimizer.zero_grad()
                for _ in range({2 if "passes" in options else 1}):
                    (weights[0].sum() + 3 * weights[1].sum()).backward()
                optimizer.step()
                assert optimizer.param_groups[0]["lr"] == 0.5
            return torch.cat([w.detach() for w in weights])
        plain, scaled = trained(1.0), trained(4.0)
        assert plain.abs().min() > 0
        print("factor %s\\n" % (scaled / plain).unique().tolist(), end="", flush=True)
    """
    assert check_ranks(program, 2).count("factor [4.0]") == 2
