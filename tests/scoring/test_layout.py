"""Every layout and option of the training loss against torch's cross_entropy, and one score a
sample against the mean of its own rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hvdfilter.errors import InputError
from hvdfilter.scoring.arguments import scores_of
from hvdfilter.scoring.criterion import Criterion
from hvdfilter.scoring.layout import to_rows, to_samples

# Images of pixels, volumes, sequences with the classes last, plain rows; no axis as long as another
# where a layout could be mistaken.
SHAPES = (((4, 5), 1), ((4, 5, 3), 1), ((2, 5, 3, 4), 1), ((2, 5, 1, 1), 1), ((1, 5, 4, 3), 1))
LAST = (((3, 4, 5), -1), ((1, 7, 5), -1), ((2, 3, 4, 5), -1))


def as_torch(logits: Tensor, axis: int) -> Tensor:
    """The logits with their classes where torch wants them."""
    return logits.movedim(axis, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SHAPES + LAST),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 2**32),
)
def test_value_gradient_and_scores(layout, smoothing, weighted, ignored, seed):
    shape, axis = layout
    torch.manual_seed(seed)
    logits = torch.randn(shape) * 3
    labels = torch.randint(0, 5, as_torch(logits, axis)[:, 0].shape)
    labels[torch.rand(labels.shape) < ignored] = -100
    if (labels == -100).all():
        labels.view(-1)[0] = 3  # torch's mean of nothing is NaN
    class_weight = torch.rand(5) + 0.1 if weighted else None
    own, other = logits.clone().requires_grad_(), logits.double().requires_grad_()

    rows, targets, each = to_rows(own, labels)
    loss, table = Criterion(class_weight, smoothing).loss(rows, targets, None)
    exact = None if class_weight is None else class_weight.double()
    expected = F.cross_entropy(as_torch(other, axis), labels, exact, label_smoothing=smoothing)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-9)
    (loss * 0.7).backward()
    (expected * 0.7).backward()
    torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-4, atol=1e-7)

    means, counted = to_samples(scores_of(table), each)
    each_loss = F.cross_entropy(
        as_torch(logits.double(), axis), labels, label_smoothing=smoothing, reduction="none"
    ).flatten(1 if labels.dim() > 1 else 0)
    hits = (as_torch(logits, axis).argmax(1) == labels).reshape(len(labels), -1)
    each_loss = each_loss.reshape(len(labels), -1)
    known = (labels != -100).reshape(len(labels), -1)
    for sample in range(len(labels)):
        mine = known[sample]
        assert counted[sample] == mine.sum() or (each == 1 and mine.sum() == 1)
        mean = each_loss[sample][mine].mean().item() if mine.any() else 0.0
        assert means.loss[sample].item() == pytest.approx(mean, rel=1e-5, abs=1e-9)
        assert means.correct[sample] == (hits[sample][mine].sum() * 2 > mine.sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3)])
def test_soft_labels(shape: tuple[int, ...], weighted: bool, smoothing: float) -> None:
    torch.manual_seed(0)
    logits, soft = torch.randn(shape), torch.softmax(torch.randn(shape), 1)
    class_weight = torch.rand(5) if weighted else None
    own, other = logits.clone().requires_grad_(), logits.double().requires_grad_()
    rows, targets, each = to_rows(own, soft)
    loss, table = Criterion(class_weight, smoothing).loss(rows, targets, None)
    exact = None if class_weight is None else class_weight.double()
    expected = F.cross_entropy(other, soft.double(), exact, label_smoothing=smoothing)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-9)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-4, atol=1e-7)
    plain = F.cross_entropy(logits, soft, label_smoothing=smoothing, reduction="none")
    found, _ = to_samples(scores_of(table), each)
    torch.testing.assert_close(found.loss, plain.reshape(len(logits), -1).mean(1))


def test_class_weights_meet_labels_that_are_ignored_or_weigh_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    for labels in (torch.full((3,), -100), torch.full((3,), 2)):
        loss, _ = Criterion(torch.tensor([1.0, 1.0, 0.0, 1.0])).loss(logits, labels, None)
        loss.backward()
        assert loss.item() == 0 and (logits.grad == 0).all()


def test_class_weights_and_sample_weights_multiply() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, -100])
    by_class, by_sample = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 3.0, 0.5, 9.0])
    loss, _ = Criterion(by_class).loss(logits, labels, by_sample)
    each = F.cross_entropy(logits, labels, by_class, reduction="none")
    expected = (each * by_sample).sum() / by_class[labels[:3]].sum()
    torch.testing.assert_close(loss, expected)


def test_where_both_layouts_fit_it_is_torch_s() -> None:
    logits, labels = torch.randn(2, 5, 5), torch.randint(0, 5, (2, 5))
    rows, targets, _ = to_rows(logits, labels)
    assert F.cross_entropy(rows, targets).item() == pytest.approx(
        F.cross_entropy(logits, labels).item()
    )


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        ((2, 5, 3), (2, 4), r"labels: \[2, 4\] beside logits of \[2, 5, 3\] fit neither"),
        ((2, 5, 3), (2,), "fit neither"),
        ((5,), (5,), r"logits: expected \[B, C\]"),
        ((2, 5, 0), (2, 0), "holds no row"),
    ],
)
def test_what_fits_no_layout(logits: tuple, labels: tuple, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        to_rows(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))


@pytest.mark.parametrize("wrong", [torch.ones(4), torch.ones(5, dtype=torch.int64)])
def test_a_class_weight_that_does_not_fit(wrong: Tensor) -> None:
    with pytest.raises(InputError, match="class_weight: expected 5 floating"):
        Criterion(wrong).loss(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), None)
