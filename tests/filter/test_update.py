"""A loss of the user's own: its mean, what is noted of it, and what is asked for by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import hvdfilter as hf


def test_a_regression_trains_on_its_mean_and_hides_its_smallest_losses() -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + torch.randn(60) * 0.1
    model = torch.nn.Linear(4, 1)
    filt = hf.Filter(60, hf.policies.make("loss", keep=0.5), epochs=4)
    kept, first = [], np.empty(60, np.float32)
    for epoch in range(4):
        filt.begin_epoch(epoch)
        order = torch.tensor(list(filt.sampler()))
        kept.append(set(order.tolist()))
        if epoch == 1:  # the 30 largest losses of epoch 0
            assert kept[1] == set(np.argsort(first)[30:])
        found = (model(x[order])[:, 0] - y[order]).square()
        loss = filt.update(found, order)
        torch.testing.assert_close(loss, found.mean())
        loss.backward()
        torch.testing.assert_close(
            model.weight.grad[0], (2 * (model(x[order])[:, 0] - y[order])) @ x[order] / len(order)
        )
        model.zero_grad()
        if epoch == 0:
            first[order] = found.detach().numpy()
    assert len(kept[0]) == 60 and len(kept[1]) == 30
    assert kept[2] >= set(range(60)) - kept[1]  # not looked at again: back after an epoch


def test_scores_beside_the_losses_are_noted_for_policies_that_need_them() -> None:
    filt = hf.Filter(6, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    filt.update(
        torch.tensor([0.5, 1.5]),
        torch.tensor([4, 2]),
        confidence=np.array([0.9, 0.25]),
        correct=[True, False],
        margin=torch.zeros(2),  # not needed: not kept
    )
    filt.end_epoch()
    assert filt.book.column("loss")[[4, 2]].tolist() == [0.5, 1.5]
    assert filt.book.column("confidence")[[4, 2]].tolist() == pytest.approx([0.9, 0.25])
    assert filt.book.column("correct")[[4, 2]].tolist() == [True, False]


def test_weights_are_in_the_mean_and_not_in_the_score() -> None:
    filt = hf.Filter(6, "loss", epochs=2)
    filt.begin_epoch(0)
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    loss = filt.update(losses, torch.tensor([0, 1]), torch.tensor([2.0, 0.5]))
    loss.backward()
    assert loss.item() == 1.75 and losses.grad.tolist() == [1.0, 0.25]
    assert filt.update(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).item() == 0
    filt.end_epoch()
    assert filt.book.column("loss")[:2].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("losses", "given", "sentence"),
    [
        (torch.tensor(0.7), {}, "not a single one; pass reduction='none' to your loss"),
        (0.7, {}, "pass reduction='none'"),
        (torch.zeros(2, 5), {}, r"got torch.float32 \[2, 5\]; take the mean over all other axes"),
        (torch.zeros(2, dtype=torch.int64), {}, "floating values"),
        (torch.zeros(2), {"weight": torch.ones(3)}, r"weight: expected constants \[2\]"),
        (torch.zeros(2), {"weight": torch.ones(2, requires_grad=True)}, "weight.detach()"),
        (torch.zeros(2), {"confidance": torch.ones(2)}, "'confidance': did you mean 'confidence'"),
        (torch.zeros(2), {"correct": torch.ones(2, 3)}, r"correct: expected .* got \[2, 3\]"),
        (torch.tensor([0.0, torch.nan]), {}, "sample id 5: its loss is NaN"),
    ],
)
def test_what_cannot_be_updated_with(losses: Any, given: dict, sentence: str) -> None:
    filt = hf.Filter(10, "loss", epochs=2)
    filt.begin_epoch(0)
    with pytest.raises(hf.InputError, match=sentence):
        filt.update(losses, torch.tensor([4, 5]), **given)


def test_a_score_that_never_comes_is_named_at_the_epoch_s_end() -> None:
    filt = hf.Filter(10, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    filt.update(torch.zeros(2), torch.tensor([4, 5]), confidence=torch.ones(2))
    with pytest.raises(hf.InputError, match="needs correct of every sample, which never came"):
        filt.end_epoch()
    filt = hf.Filter(10, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    filt.update(torch.zeros(2), torch.tensor([4, 5]))
    with pytest.raises(hf.InputError, match="pass confidence=..., correct=... beside the losses"):
        filt.end_epoch()
