"""What hf.cross_entropy refuses: values, arguments and second derivatives, each by its name."""

from __future__ import annotations

import pytest
import torch

from hvdfilter.errors import InputError
from hvdfilter.scoring import BadRowsError, cross_entropy
from tests.scoring.cases import batch


def test_bad_values_are_refused() -> None:
    logits, labels = batch(20, 10, torch.float32)
    soft = torch.softmax(logits, 1)
    for row, value in ((3, -0.5), (8, torch.nan), (9, torch.inf)):
        wrong = soft.clone()
        wrong[row, 2] = value
        with pytest.raises(BadRowsError, match=f"labels: row {row} "):
            cross_entropy(logits, wrong)
    labels[13] = 10
    with pytest.raises(BadRowsError, match="labels: row 13 "):
        cross_entropy(logits.requires_grad_(), labels)


def test_wrong_arguments_are_named() -> None:
    logits, labels = batch(4, 6, torch.float32)
    wrong: list[tuple[str, dict[str, object]]] = [
        ("labels: expected", {"labels": torch.zeros(4, 5)}),
        ("labels: dtype", {"labels": labels.bool()}),
        ("weight: expected", {"weight": torch.ones(3)}),
        ("weight: dtype", {"weight": torch.ones(4, dtype=torch.int64)}),
        ("weight: is taken as a constant", {"weight": torch.ones(4, requires_grad=True)}),
        ("weight: on meta", {"weight": torch.ones(4, device="meta")}),
        ("label_smoothing: must lie", {"label_smoothing": 1.5}),
    ]
    for message, change in wrong:
        with pytest.raises(InputError, match=message):
            cross_entropy(**{"logits": logits, "labels": labels, **change})  # type: ignore[arg-type]


def test_a_gradient_of_the_gradient_is_refused() -> None:
    logits, labels = batch(4, 6, torch.float32)
    loss, _ = cross_entropy(logits.requires_grad_(), labels)
    (gradient,) = torch.autograd.grad(loss.square(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
