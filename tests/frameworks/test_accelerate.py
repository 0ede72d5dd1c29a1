"""Accelerate as it is installed: its own prepare shards a filter's loader again, ours does not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

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


def loader_of(filt: hf.Filter) -> DataLoader[Any]:
    return DataLoader(hf.Indexed(make_set()), BATCH, sampler=filt.sampler())


def test_a_prepared_loader_trains_the_mask_and_knows_its_last_batch() -> None:
    accelerator = accelerate.Accelerator(gradient_accumulation_steps=3, cpu=True)
    net = make_net()
    net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    filt = hf.Filter(SAMPLES, Shares(), epochs=len(SHARES))
    loader = prepare(accelerator, loader_of(filt), filt)
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


class Run:
    """A training script that may save itself within an epoch, and go on from there."""

    def __init__(self, policy: Any, streamed: bool = False) -> None:
        self.accelerator = accelerate.Accelerator(cpu=True)
        self.filt = hf.Filter(SAMPLES, policy, epochs=len(SHARES))
        loader = loader_of(self.filt)
        if streamed:
            loader = DataLoader(self.filt.stream(make_set(), BATCH), BATCH)
        self.loader = prepare(self.accelerator, loader, self.filt)
        self.net = make_net()
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self.model, self.optimizer = self.accelerator.prepare(self.net, optimizer)
        self.trained: list[int] = []

    def train(self, save: Path | None = None, at: tuple[int, int] = (0, 0)) -> None:
        for epoch in range(self.filt.next_epoch, len(SHARES)):
            self.filt.begin_epoch(epoch, self.optimizer)
            for number, (ids, x, y) in enumerate(self.loader):
                if save is not None and (epoch, number) == at:
                    self.accelerator.save_state(str(save))
                    return
                self.accelerator.backward(self.filt.loss(self.model(x), y, ids))
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.trained += ids.tolist()
        self.filt.end_epoch()


# Before a first batch, after some, and before the last one, which is fetched already.
@pytest.mark.parametrize("at", [(2, 0), (1, 3), (0, 12)])
def test_what_is_saved_within_an_epoch_goes_on_as_if_it_had_not_stopped(
    at: tuple[int, int], tmp_path: Path
) -> None:
    whole, part, rest = Run("infobatch"), Run("infobatch"), Run("infobatch")
    whole.train()
    Run("infobatch").train(tmp_path, (0, 1))  # whose place what is saved next takes
    part.train(tmp_path, at)
    rest.accelerator.load_state(str(tmp_path))
    assert rest.filt.next_epoch == at[0]
    rest.train()
    assert part.trained + rest.trained == whole.trained
    assert torch.equal(weights(rest.net), weights(whole.net))


def test_a_state_without_the_filters_is_refused(tmp_path: Path) -> None:
    run = Run("full")
    run.train(tmp_path, (0, 1))
    (saved,) = tmp_path.glob("hvdfilter.*")
    saved.unlink()
    with pytest.raises(hf.InputError, match="holds 0 states of a filter in place of one"):
        Run("full").accelerator.load_state(str(tmp_path))


def test_a_stream_is_trained_as_its_mask_says_and_begins_its_epoch_again(tmp_path: Path) -> None:
    run, rest = Run(Shares(), streamed=True), Run(Shares(), streamed=True)
    run.train()
    wanted = kept(Shares())
    assert run.trained == [i for ids in wanted for i in ids]
    Run(Shares(), streamed=True).train(tmp_path, (2, 1))
    rest.accelerator.load_state(str(tmp_path))
    rest.train()
    assert rest.trained == [i for ids in wanted[2:] for i in ids]


def test_loaders_that_are_not_this_filters_are_refused() -> None:
    accelerator, filt = accelerate.Accelerator(cpu=True), hf.Filter(SAMPLES, "full", epochs=1)
    other = hf.Filter(SAMPLES, "full", epochs=1)
    apart = SimpleNamespace(num_processes=3)
    with pytest.raises(hf.InputError, match="on 3 ranks and the filter spans 1: .*cpu=True"):
        prepare(apart, loader_of(filt), filt)
    parts = SimpleNamespace(
        num_processes=1, parallelism_config=SimpleNamespace(non_data_parallel_size=2)
    )
    with pytest.raises(hf.InputError, match="2 ranks hold one model in parts"):
        prepare(parts, loader_of(filt), filt)
    with pytest.raises(hf.InputError, match="draws from RandomSampler, which is not this filter's"):
        prepare(accelerator, DataLoader(make_set(), 2, shuffle=True), filt)
    with pytest.raises(hf.InputError, match="draws from EpochSampler, which is not this filter's"):
        prepare(accelerator, loader_of(other), filt)
    short = DataLoader(hf.Indexed(Subset(make_set(), range(7))), 2, sampler=filt.sampler())
    with pytest.raises(hf.InputError, match="set has 7 samples and the filter was made for 101"):
        prepare(accelerator, short, filt)


def test_a_release_that_prepares_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, filt = accelerate.Accelerator(cpu=True), hf.Filter(SAMPLES, "full", epochs=1)
    # As if it marked what it has prepared in another way.
    monkeypatch.setattr(type(accelerator), "prepare", lambda self, loader: copy.copy(loader))
    told = (
        f"leans on '_is_accelerate_prepared' of a loader, which accelerate {accelerate.__version__}"
    )
    with pytest.raises(hf.InstallError, match=told):
        prepare(accelerator, loader_of(filt), filt)


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
    assert source.count("= prepare(accelerator, loader, filt)") == 1
    own = "= accelerator.prepare(loader)"
    program.write_text(source.replace("= prepare(accelerator, loader, filt)", own))
    done = run_example(str(program), TORCHRUN, "--epochs", "2")
    assert done.returncode != 0
    told = r"only one of 2 parts of what filt.sampler\(\) gave.*hvdfilter.adapters.accelerate"
    assert len(re.findall(told, done.stderr)) >= 2, done.stderr[-3000:]
