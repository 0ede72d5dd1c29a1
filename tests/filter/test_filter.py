"""Filter in a world of one: what it trains, hides, scales, refuses and restores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf

CLASSES = 5


def scored(filt: hf.Filter, ids: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
    """Train-step stand-in: logits whose true class leads by `gap`."""
    labels = ids % CLASSES
    logits = F.one_hot(labels, CLASSES) * gap[ids, None]
    return filt.loss(logits.requires_grad_(), labels, ids)


def run_epoch(filt: hf.Filter, epoch: int, gap: torch.Tensor, rescore: bool = True) -> list[int]:
    """One epoch at batch 16; returns the ids trained, in order."""
    filt.begin_epoch(epoch)
    order = list(filt.sampler())
    for start in range(0, len(order), 16):
        scored(filt, torch.tensor(order[start : start + 16]), gap)
    if rescore:
        hidden = torch.tensor(list(filt.hidden_sampler()), dtype=torch.int64)
        if len(hidden):
            filt.note(
                F.one_hot(hidden % CLASSES, CLASSES) * gap[hidden, None], hidden % CLASSES, hidden
            )
    return order


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_logits_are_named_by_sample_id(bad: float) -> None:
    filt = hf.Filter(1000, "random", epochs=2)
    filt.begin_epoch(0)
    logits = torch.zeros(4, 3)
    logits[2, 1] = bad
    with pytest.raises(hf.InputError, match="sample id 777"):
        filt.loss(logits, torch.tensor([0, 1, 2, 0]), torch.tensor([5, 6, 777, 8]))


def test_bad_label_is_named_by_sample_id() -> None:
    filt = hf.Filter(1000, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    with pytest.raises(hf.InputError, match="sample id 6.*label"):
        filt.loss(torch.zeros(2, 3), torch.tensor([0, 3]), torch.tensor([5, 6]))
    with pytest.raises(hf.InputError, match="sample id 6.*label"):
        filt.note(torch.zeros(2, 3), torch.tensor([0, 3]), torch.tensor([5, 6]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_samples": 0}, "0 samples cannot be shared by 1 ranks"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"labels": np.zeros(3)}, "one label for each of the 10"),
        ({"policy": "kakurembo"}, "did you mean 'kakurenbo'"),
    ],
)
def test_bad_arguments(arguments: dict, sentence: str) -> None:
    with pytest.raises(hf.InputError, match=sentence):
        hf.Filter(**{"num_samples": 10, "epochs": 3, **arguments})


def test_ids_outside_the_set_are_refused() -> None:
    filt = hf.Filter(10, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    filt.loss(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([10]))
    with pytest.raises(hf.InputError, match=r"id 10 lies outside \[0, 10\)"):
        filt.end_epoch()


def test_state_goes_on_where_it_was_taken_even_within_an_epoch() -> None:
    rng = np.random.default_rng(0)
    gap = torch.tensor(rng.normal(2, 3, 100), dtype=torch.float32)

    def start() -> hf.Filter:
        return hf.Filter(100, hf.policies.make("kakurenbo", warmup=1), epochs=20, seed=4)

    whole = start()
    run_epoch(whole, 0, gap)
    whole.begin_epoch(1)
    order = list(whole.sampler())
    for at in range(0, len(order), 16):
        scored(whole, torch.tensor(order[at : at + 16]), gap)
    whole.begin_epoch(2)

    half = start()
    run_epoch(half, 0, gap)
    half.begin_epoch(1)
    drawn = iter(half.sampler())
    for _ in range(2):
        scored(half, torch.tensor([next(drawn) for _ in range(16)]), gap)
    resumed = start()
    resumed.load_state_dict(half.state_dict())
    rest = list(resumed.sampler())
    assert rest == order[32:] and resumed.lr_scale == half.lr_scale
    for at in range(0, len(rest), 16):
        scored(resumed, torch.tensor(rest[at : at + 16]), gap)
    assert resumed.begin_epoch(2).digest == whole.mask.digest


def test_state_of_another_run_is_refused() -> None:
    state = hf.Filter(100, "random", epochs=3, seed=1).state_dict()
    with pytest.raises(hf.InputError, match="saved filter has seed=1 but this one has seed=2"):
        hf.Filter(100, "random", epochs=3, seed=2).load_state_dict(state)


def test_rescore_uses_eval_mode_and_restores_training_mode() -> None:
    # BatchNorm's running statistics must not move while hidden samples are looked at.
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    before = model[0].running_mean.clone()
    filt = hf.Filter(8, "kakurenbo", epochs=3)
    filt.begin_epoch(0)
    batch = (torch.arange(8), torch.randn(8, 4) + 5, torch.zeros(8, dtype=torch.int64))
    filt.rescore(model, [batch])
    assert model.training and torch.equal(model[0].running_mean, before)
    filt.end_epoch()
    model.eval()
    expected = F.cross_entropy(model(batch[1]), batch[2], reduction="none")
    np.testing.assert_allclose(filt.book.column("loss"), expected.detach().numpy(), rtol=1e-5)


def test_a_policy_may_use_labels_statistics_and_budgets_a_class() -> None:
    # The three hardest of each class, and whatever is above the global mean loss.
    @hf.policies.register
    @dataclass(frozen=True)
    class PerClass(hf.policies.Policy):
        name: ClassVar[str] = "test-per-class"
        columns: ClassVar[tuple[str, ...]] = ("loss",)

        def plan(self, view: hf.policies.View) -> hf.policies.Plan:
            loss = view.column("loss")
            above = loss > view.mean("loss")
            budget = np.full(CLASSES, 3)
            return hf.policies.Plan(loss, budget, above, groups=view.labels)

    gap = torch.arange(40, 0, -1) / 10  # the loss grows with the id
    filt = hf.Filter(40, "test-per-class", epochs=2, labels=np.arange(40) % CLASSES)
    ids = torch.arange(40)
    filt.note(F.one_hot(ids % CLASSES, CLASSES) * gap[:, None], ids % CLASSES, ids)
    filt.book.exchange()
    loss = filt.book.column("loss")
    expected = set(np.flatnonzero(loss > loss.mean())) | set(range(25, 40))
    filt.begin_epoch(1)
    assert set(filt.sampler()) == expected


def test_a_policy_that_keeps_nothing_is_refused() -> None:
    @hf.policies.register
    @dataclass(frozen=True)
    class Nothing(hf.policies.Policy):
        name: ClassVar[str] = "test-nothing"

        def plan(self, view: hf.policies.View) -> hf.policies.Plan:
            return hf.policies.Plan(np.zeros(view.stop - view.start, np.float32), 0)

    with pytest.raises(hf.InputError, match="keeps no sample in epoch 0"):
        hf.Filter(10, "test-nothing", epochs=1).begin_epoch(0)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(hf.InputError, match="not the state of a Filter: it has no 'num_samples'"):
        hf.Filter(10, "random", epochs=1).load_state_dict({})
