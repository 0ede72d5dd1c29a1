"""Filter in a world of one: what an epoch trains, hides, scales and refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf
from tests.filter.cases import run_epoch


def test_trains_kept_hides_learnt_and_scales_the_rate() -> None:
    # 100 samples; ids 0..39 are learnt (gap 6: confidence 0.99), the rest are not (gap 0.1).
    gap = torch.full((100,), 0.1)
    gap[:40] = 6.0
    filt = hf.Filter(100, hf.policies.make("kakurenbo", warmup=1), epochs=90)
    assert sorted(run_epoch(filt, 0, gap)) == list(range(100)) and filt.lr_scale == 1
    order = run_epoch(filt, 1, gap)
    # The 30 of lowest loss, all tied: keeping goes by ascending id, so ids 10..39 are hidden.
    assert sorted(order) == [*range(10), *range(40, 100)]
    assert filt.hidden == 30 and filt.lr_scale == pytest.approx(100 / 70)
    gap[10:25] = -3.0  # forgotten while hidden: the re-scoring pass must bring them back
    run_epoch(filt, 2, gap)
    filt.begin_epoch(3)
    assert not set(range(10, 25)) & set(filt.hidden_sampler())


def test_without_rescoring_hidden_samples_return_after_one_epoch() -> None:
    gap = torch.full((50,), 6.0)
    filt = hf.Filter(50, hf.policies.make("kakurenbo", warmup=1), epochs=30)
    run_epoch(filt, 0, gap)
    run_epoch(filt, 1, gap, rescore=False)
    hidden = set(filt.hidden_sampler())
    run_epoch(filt, 2, gap, rescore=False)
    assert hidden and not hidden & set(filt.hidden_sampler())


def test_four_line_adoption_learns_and_hides() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 8)
    y = (x[:, 0] > 0).long()
    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    filt = hf.Filter(200, policy="kakurenbo", epochs=12)
    loader = DataLoader(hf.Indexed(TensorDataset(x, y)), 20, sampler=filt.sampler())
    steps = []
    for epoch in range(12):
        filt.begin_epoch(epoch, optimizer)
        count = 0
        for ids, inputs, targets in loader:
            optimizer.zero_grad()
            loss = filt.loss(model(inputs), targets, ids)
            assert loss.item() == pytest.approx(F.cross_entropy(model(inputs), targets).item())
            loss.backward()
            optimizer.step()
            count += 1
        steps.append(count)
    assert steps[:5] == [10] * 5 and min(steps[5:]) < 10
    assert (model(x).argmax(1) == y).float().mean() > 0.95


def test_a_policy_that_keeps_nothing_is_refused() -> None:
    @hf.policies.register
    @dataclass(frozen=True)
    class Nothing(hf.policies.Policy):
        name: ClassVar[str] = "test-nothing"

        def plan(self, view: hf.policies.View) -> hf.policies.Plan:
            return hf.policies.Plan(np.zeros(view.stop - view.start, np.float32), 0)

    with pytest.raises(hf.InputError, match="keeps no sample in epoch 0"):
        hf.Filter(10, "test-nothing", epochs=1).begin_epoch(0)


def test_a_framework_that_counts_epochs_by_itself_changes_none() -> None:
    # Accelerate counts the passes over a loader from 0, also in a run that goes on at epoch 2.
    filt = hf.Filter(50, "full", epochs=3)
    run_epoch(filt, 0, torch.ones(50))
    run_epoch(filt, 1, torch.ones(50))
    filt.begin_epoch(2)
    whole, rest = list(filt.sampler()), hf.Filter(50, "full", epochs=3)
    for start in range(0, 50, 10):
        scored_ids = torch.tensor(whole[start : start + 10])
        filt.loss(torch.zeros(10, 5, requires_grad=True), scored_ids % 5, scored_ids)
        if start == 10:
            rest.load_state_dict(filt.state_dict(consumed=20))
    rest.begin_epoch(2)
    rest.sampler().set_epoch(0)
    assert list(rest.sampler()) == whole[20:]
