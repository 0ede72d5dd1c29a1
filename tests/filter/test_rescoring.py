"""A forward-only pass scores and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import hvdfilter as hf


def test_rescore_uses_eval_mode_and_restores_training_mode() -> None:
    # BatchNorm's running statistics must not move while hidden samples are looked at.
    torch.manual_seed(0)
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


def test_parts_that_were_frozen_in_eval_mode_stay_so() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    model.train()
    model[0].eval()
    filt = hf.Filter(8, "kakurenbo", epochs=3)
    filt.rescore(model, [(torch.arange(8), torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))])
    assert model.training and model[1].training and not model[0].training


class Tagger(torch.nn.Module):
    """A model with a form of its own: keywords in, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 5)

    def forward(self, *, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        assert not self.training and not torch.is_grad_enabled()
        return {"logits": self.layer(inputs)}


def tagged() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    return [
        {"ids": ids, "inputs": torch.randn(4, 6, 4), "labels": torch.randint(0, 5, (4, 6))}
        for ids in (torch.tensor([1, 3, 5, 7]), torch.tensor([0, 2, 4, 6]))
    ]


@pytest.mark.parametrize("form", ["logits", "losses", "scores"])
def test_a_step_of_the_user_s_own_takes_any_batch_and_model(form: str) -> None:
    model, batches = Tagger(), tagged()
    filt = hf.Filter(8, "kakurenbo" if form == "scores" else "loss", epochs=3)
    filt.begin_epoch(0)

    def step(batch: dict[str, torch.Tensor]) -> tuple:
        logits = model(inputs=batch["inputs"])["logits"]
        each = F.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none").mean(1)
        scores = {"confidence": torch.full((4,), 0.5), "correct": each < 1.7}
        return {
            "logits": (batch["ids"], logits, batch["labels"]),
            "losses": (batch["ids"], each),
            "scores": (batch["ids"], each, scores),
        }[form]

    filt.rescore(model, batches, step)
    filt.end_epoch()
    for batch in batches:
        logits = model.layer(batch["inputs"]).transpose(1, 2)
        each = F.cross_entropy(logits, batch["labels"], reduction="none").mean(1)
        found = filt.book.column("loss")[batch["ids"]]
        np.testing.assert_allclose(found, each.detach().numpy(), rtol=1e-5)
        if form == "scores":
            correct = filt.book.column("correct")[batch["ids"]]
            assert (correct == (each < 1.7).numpy()).all()


@pytest.mark.parametrize(
    ("batches", "step", "sentence"),
    [
        ([{"x": 1}], None, "a batch is dict, not .ids, x, y.; pass step="),
        ([(1, 2)], None, "a batch is tuple, not"),
        ([0], lambda batch: None, "step must return .ids, losses."),
        ([0], lambda batch: (torch.tensor([1]), torch.tensor(0.5)), "reduction='none'"),
        ([0], lambda batch: (torch.tensor([9]), torch.tensor([0.5])), "ids: 9 lies outside"),
    ],
)
def test_what_rescore_cannot_take(batches: list, step: Any, sentence: str) -> None:
    filt = hf.Filter(8, "loss", epochs=3)
    filt.begin_epoch(0)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(hf.InputError, match=sentence):
        filt.rescore(model, batches, step)
    assert model.training
