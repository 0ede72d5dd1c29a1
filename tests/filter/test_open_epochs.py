"""Steps belong to an epoch that has begun and not ended; one left in its middle goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

import hvdfilter as hf
from tests.filter.cases import scored

HARD = torch.linspace(0.1, 6, 64)


def new_filter() -> hf.Filter:
    return hf.Filter(64, hf.policies.make("kakurenbo", warmup=1, tau=0.1), epochs=4)


def test_a_step_outside_of_any_epoch_is_refused() -> None:
    filt, ids = new_filter(), torch.arange(4)
    with pytest.raises(hf.InputError, match=r"no epoch has begun: call filt.begin_epoch\(epoch, "):
        scored(filt, ids, HARD)
    filt.begin_epoch(0)
    scored(filt, ids, HARD)
    filt.end_epoch()
    with pytest.raises(hf.InputError, match="no epoch is open, 0 has ended: call"):
        filt.update(torch.rand(4, requires_grad=True), ids)
    with torch.no_grad():
        assert filt.loss(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), None) > 0


def test_one_begin_epoch_for_several_epochs_is_refused() -> None:
    filt = new_filter()
    loader = DataLoader(range(64), 16, sampler=filt.sampler())
    filt.begin_epoch(0)
    for _ in range(3):
        for ids in loader:
            scored(filt, ids, HARD)
    with pytest.raises(hf.InputError, match=r"epoch 0: filt.sampler\(\) was drawn from 3 times"):
        filt.end_epoch()


def test_begin_epoch_goes_on_with_an_epoch_that_was_saved_in_its_middle() -> None:
    filt = new_filter()
    loader = DataLoader(range(64), 8, sampler=filt.sampler())
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    trained: list[list[int]] = []
    for epoch in (0, 1):
        mask = filt.begin_epoch(epoch, optimizer)
        trained = []
        for ids in loader:
            scored(filt, ids, HARD)
            trained.append(ids.tolist())
            if epoch == 1 and len(trained) == 2:
                break
    state = filt.state_dict(consumed=16)

    filt = new_filter()
    loader = DataLoader(range(64), 8, sampler=filt.sampler())
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    assert filt.next_epoch == 0
    filt.load_state_dict(state)
    assert filt.next_epoch == 1
    assert filt.begin_epoch(1, optimizer) == mask
    for ids in loader:
        scored(filt, ids, HARD)
        trained.append(ids.tolist())
    assert sorted(sum(trained, [])) == mask.kept_ids().tolist()
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.item() == pytest.approx(1 - 64 / mask.count)  # attached by begin_epoch
    filt.end_epoch()
    assert filt.next_epoch == 2
    filt.begin_epoch(2)
    assert filt.epoch == filt.next_epoch == 2


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("filt.end_epoch()", ""),
        ("", "epoch 0: filt.sampler() was drawn from 2 times"),
        ("raise KeyError(7)", "KeyError: 7"),
    ],
)
def test_what_the_last_epoch_did_wrong_is_told_though_nobody_ends_it(
    last: str, sentence: str
) -> None:
    source = f"""
import torch, hvdfilter as hf
filt = hf.Filter(40, hf.policies.make("loss"), epochs=1)
filt.begin_epoch(0)
for _ in range(1 if {last!r} else 2):
    for at in filt.sampler():
        filt.update(torch.rand(1, requires_grad=True), [at])
{last}
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode != 0) == bool(sentence)
    assert sentence in done.stderr
    assert ("as the script exits" in done.stderr) == (not last)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: hf.Filter(range(10), epochs=2), "num_samples must be an integer, not range"),
        (lambda: hf.Filter(10, epochs=2.0), "epochs must be an integer"),
        (lambda: hf.Filter(10, epochs=2).begin_epoch(1.0), "epoch must be an integer, not 1.0"),
        (lambda: hf.Filter(10, epochs=2).keeps(1.5), "ids, which are integers, not float64"),
        (lambda: hf.Filter(10, epochs=2).keeps([3, 10]), r"outside \[0, 10\)"),
    ],
)
def test_what_is_no_number_is_refused(call, sentence: str) -> None:
    with pytest.raises(hf.InputError, match=sentence):
        call()
