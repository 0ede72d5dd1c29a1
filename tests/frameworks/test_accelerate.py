"""Accelerate as it is installed: its own prepare shards a filter's loader again, ours does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import hvdfilter as hf
from tests.distributed.launch import ROOT
from tests.frameworks.cases import (
    BATCH,
    LAUNCHERS,
    SAMPLES,
    SHARES,
    TORCHRUN,
    Shares,
    kept,
    make_net,
    make_set,
    run_example,
    weights,
)

accelerate = pytest.importorskip("accelerate")
prepare = pytest.importorskip("hvdfilter.adapters.accelerate").prepare
EXAMPLE = ROOT / "examples" / "filtered_accelerate.py"


def test_a_prepared_loader_trains_the_mask_and_knows_its_last_batch() -> None:
    accelerator = accelerate.Accelerator(gradient_accumulation_steps=3, cpu=True)
    net = make_net()
    net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    filt = hf.Filter(SAMPLES, Shares(), epochs=len(SHARES))
    loader = prepare(accelerator, DataLoader(hf.Indexed(make_set()), BATCH, sampler=filt.sampler()))
    assert accelerator.prepare(loader) is loader
    # The same by hand: gradients of three batches, or of what is left of an epoch, make a step.
    slow = make_net()
    plain = torch.optim.SGD(slow.parameters(), lr=0.1)
    data = make_set()
    for epoch, wanted in enumerate(kept(Shares())):
        filt.begin_epoch(epoch, optimizer)
        seen: list[int] = []
        for number, (ids, x, y) in enumerate(loader, 1):
            with accelerator.accumulate(net):
                accelerator.backward(filt.loss(net(x), y, ids))
                optimizer.step()
                optimizer.zero_grad()
            (F.cross_entropy(slow(data[ids][0]), data[ids][1]) / 3).backward()
            seen += ids.tolist()
            if number % 3 == 0 or number == len(loader):
                plain.step()
                plain.zero_grad()
        assert sorted(seen) == wanted and len(loader) == -(-len(wanted) // BATCH)
    filt.end_epoch()
    torch.testing.assert_close(weights(net), weights(slow), atol=1e-6, rtol=1e-5)


def test_ranks_that_accelerate_does_not_join_are_refused() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    sampler = hf.ShardSampler(hf.KeepMask.full(10), 1, 3)
    with pytest.raises(hf.InputError, match="on 1 ranks and the filter spans 3: .*cpu=True"):
        prepare(accelerator, DataLoader(range(10), 2, sampler=sampler))  # type: ignore[arg-type]
    with pytest.raises(hf.InputError, match="draws from RandomSampler, which is no filter's"):
        prepare(accelerator, DataLoader(range(10), 2, shuffle=True))  # type: ignore[arg-type]


@pytest.mark.distributed
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_example(launcher: str) -> None:
    done = run_example("filtered_accelerate.py", LAUNCHERS[launcher], "--epochs", "7")
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = re.findall(r"accuracy (\S+), hidden (\d+), last rate (\S+)", done.stdout)
    assert float(found[0]) > 0.85 and int(found[1]) > 0
    assert float(found[2]) < 1e-4  # OneCycleLR's last one: all of its steps were made


@pytest.mark.distributed
def test_a_loader_that_accelerate_prepares_itself_is_refused_on_every_rank(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    source = EXAMPLE.read_text()
    assert source.count("= prepare(accelerator, loader)") == 1
    own = "= accelerator.prepare(loader)"
    program.write_text(source.replace("= prepare(accelerator, loader)", own))
    done = run_example(str(program), TORCHRUN, "--epochs", "2")
    assert done.returncode != 0
    told = r"only one of 2 parts of what filt.sampler\(\) gave.*hvdfilter.adapters.accelerate"
    assert len(re.findall(told, done.stderr)) >= 2, done.stderr[-3000:]
