"""Batches that cannot be scored or noted are told by sample id."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import hvdfilter as hf


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


@pytest.mark.parametrize("policy", ["kakurenbo", "random"])  # wants scores, wants none
@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (torch.tensor([0, 10]), r"ids: 10 lies outside \[0, 10\)"),
        (torch.tensor([-1, 3]), r"ids: -1 lies outside \[0, 10\)"),
        (torch.tensor([0, 11], dtype=torch.int32), "ids: 11 lies outside"),
        (torch.tensor([0.0, 1.0]), "ids: dtype must be int64 or int32, not torch.float32"),
        (torch.tensor([True, False]), "not torch.bool"),
        (torch.tensor([0, 1, 2]), r"one id for each of the 2 samples of the batch, got \[3\]"),
        (torch.tensor([[0], [1]]), r"got \[2, 1\]"),
        (torch.tensor(1), r"got \[\]"),
        (["a", "b"], "ids: expected integers, got list"),
        (None, "ids: expected integers, got NoneType"),
    ],
)
def test_ids_that_name_no_sample_are_refused_at_once(ids: Any, sentence: str, policy: str) -> None:
    filt = hf.Filter(10, policy, epochs=2)
    filt.begin_epoch(0)
    logits, labels = torch.zeros(2, 3), torch.tensor([0, 1])
    for call in (
        lambda: filt.loss(logits, labels, ids),
        lambda: filt.note(logits, labels, ids),
        lambda: filt.update(torch.zeros(2), ids),
    ):
        with pytest.raises(hf.InputError, match=sentence):
            call()
    assert filt.book.pending == filt.batches == 0  # nothing of a refused batch is left


def test_lists_and_small_integers_are_ids() -> None:
    filt = hf.Filter(10, "loss", epochs=2)
    filt.begin_epoch(0)
    filt.update(torch.tensor([1.0, 2.0]), [3, 4])
    filt.update(torch.tensor([3.0]), torch.tensor([5], dtype=torch.int16))
    filt.end_epoch()
    assert filt.book.column("loss")[3:6].tolist() == [1, 2, 3]


def test_validation_is_not_noted_and_its_ids_not_looked_at() -> None:
    filt = hf.Filter(4, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    logits, labels = torch.randn(3, 5), torch.tensor([0, 1, 4])
    ids = torch.tensor([1, 2, 3])
    filt.loss(logits.requires_grad_(), labels, ids)
    with torch.no_grad():
        for others in (ids, torch.tensor([7, 8, 9]), None):
            found = filt.loss(logits * 2, labels, others)
            assert found.item() == pytest.approx(F.cross_entropy(logits * 2, labels).item())
        assert filt.update(torch.tensor([1.0, 3.0]), None).item() == 2
    with torch.inference_mode():
        filt.loss(logits * 3, labels, ids)
    filt.end_epoch()
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(torch.tensor(filt.book.column("loss")[1:]), expected.detach())


def test_a_model_s_tokens_are_one_score_a_sample_in_every_layout() -> None:
    # The same 3 sequences of 4 tokens as [B, T, V], as [B, V, T] and flattened with ids repeated.
    torch.manual_seed(1)
    logits, labels = torch.randn(3, 4, 7), torch.randint(0, 7, (3, 4))
    labels[0, 2:], labels[2] = -100, -100  # padding, and a sequence of nothing else
    ids = torch.tensor([5, 2, 0])
    calls = {
        "last": (logits, labels, ids),
        "torch": (logits.transpose(1, 2), labels, ids),
        "flat": (logits.flatten(0, 1), labels.flatten(), ids.repeat_interleave(4)),
    }
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(3, 4)
    norm = (logits.softmax(2) - F.one_hot(labels.clamp(0), 7)).norm(dim=2)
    for name, arguments in calls.items():
        filt = hf.Filter(6, _Columns(("loss", "grad_norm", "age")), epochs=2)
        filt.begin_epoch(0)
        loss = filt.loss(*arguments)
        expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(loss, expected)
        filt.end_epoch()
        book = filt.book
        assert book.column("loss")[5] == pytest.approx(each[0, :2].mean().item()), name
        assert book.column("loss")[2] == pytest.approx(each[1].mean().item()), name
        assert book.column("grad_norm")[5] == pytest.approx(norm[0, :2].mean().item(), rel=1e-5)
        assert book.column("age").tolist() == [-1, -1, 1, -1, -1, 1]  # all of 0 is ignored


def test_bad_pixels_are_named_by_their_sample() -> None:
    filt = hf.Filter(1000, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    labels = torch.zeros(3, 4, 4, dtype=torch.int64)
    labels[1, 2, 3] = 9
    with pytest.raises(hf.InputError, match="sample id 777: labels: row 27 is outside"):
        filt.loss(torch.zeros(3, 5, 4, 4), labels, torch.tensor([5, 777, 6]))


def test_a_weight_is_of_samples_whatever_the_layout() -> None:
    filt = hf.Filter(10, "random", epochs=2)
    filt.begin_epoch(0)
    logits, labels, ids = torch.randn(2, 5, 3), torch.randint(0, 5, (2, 3)), torch.tensor([0, 1])
    found = filt.loss(logits, labels, ids, torch.tensor([2.0, 0.5]))
    each = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(found, (each * torch.tensor([[2.0], [0.5]])).mean())
    with pytest.raises(hf.InputError, match=r"weight: expected \[2\], one for each sample"):
        filt.loss(logits, labels, ids, torch.ones(6))


def test_mixed_samples_are_trained_and_not_noted() -> None:
    torch.manual_seed(2)
    filt = hf.Filter(4, "kakurenbo", epochs=3)
    filt.begin_epoch(0)
    logits, labels, ids = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.arange(4)
    soft = 0.3 * F.one_hot(labels, 3) + 0.7 * F.one_hot(labels.flip(0), 3)
    found = filt.loss(logits, soft, ids)
    assert found.item() == pytest.approx(F.cross_entropy(logits, soft).item())
    filt.loss(logits, labels, ids, mixed=True)
    assert filt.book.pending == 0
    filt.loss(logits, soft, ids, mixed=False)  # annotators' shares, say
    filt.end_epoch()
    expected = F.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(torch.tensor(filt.book.column("loss")[:]), expected)


def test_nothing_but_mixed_samples_is_said_at_the_first_epoch_s_end() -> None:
    filt = hf.Filter(4, "kakurenbo", epochs=3)
    filt.begin_epoch(0)
    filt.loss(torch.zeros(4, 3), torch.full((4, 3), 1 / 3), torch.arange(4))
    with pytest.raises(hf.InputError, match="needs confidence and correct and loss .*mixed=False"):
        filt.end_epoch()


def test_notes_are_scored_as_the_last_loss_was() -> None:
    # A hidden sample's score is set against trained ones: it must be the same function.
    filt = hf.Filter(8, "loss", epochs=3)
    filt.begin_epoch(0)
    logits, labels = torch.randn(2, 5, requires_grad=True), torch.tensor([1, 7])
    filt.loss(logits, labels, torch.tensor([0, 1]), label_smoothing=0.2, ignore_index=7)
    filt.note(logits, labels, torch.tensor([2, 3]))
    filt.end_epoch()
    column = filt.book.column("loss")
    expected = F.cross_entropy(logits[:1], labels[:1], label_smoothing=0.2).item()
    assert column[0] == column[2] == pytest.approx(expected)
    assert filt.book.column("age").tolist() == [1, -1, 1, -1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        (torch.zeros(2), torch.zeros(2), "no choice between classes.*filt.update"),
        (torch.zeros(2, 3), torch.zeros(2), "no choice between classes"),
        (torch.zeros(2, 1), torch.zeros(2, 1), "no choice between classes"),
        (torch.zeros(2, 3), None, "must be tensors, not Tensor and NoneType"),
        (torch.zeros(2, 3), torch.full((2, 3), 1 / 3), "mixed=False"),
        (torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64), "fit neither"),
    ],
)
def test_what_cannot_be_noted(logits: Any, labels: Any, sentence: str) -> None:
    filt = hf.Filter(10, "kakurenbo", epochs=2)
    with pytest.raises(hf.InputError, match=sentence):
        filt.note(logits, labels, torch.tensor([0, 1]))


class _Columns(hf.policies.Policy):
    """Keeps everything and wants these columns."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns  # type: ignore[misc]

    def plan(self, view: hf.policies.View) -> hf.policies.Plan:
        return view.everything()
