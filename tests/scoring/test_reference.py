"""The plain torch reference itself, held against torch's own functions in float64."""

from __future__ import annotations

import torch
from torch.nn import functional

from hvdfilter.scoring import reference
from tests.scoring.cases import batch


def test_score_is_what_autograd_says() -> None:
    # Gaps of a few units, where the textbook forms still hold all their digits.
    logits, labels = batch(12, 9, torch.float64)
    logits = (logits / 8).requires_grad_()
    losses = functional.cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    scores = reference.score(logits.detach(), labels)
    torch.testing.assert_close(scores.loss, losses.detach())
    torch.testing.assert_close(scores.grad_norm, gradient.norm(dim=1))
    p = torch.softmax(logits.detach(), 1)
    torch.testing.assert_close(scores.confidence, p.amax(1))
    assert torch.equal(scores.correct, p.argmax(1) == labels)
    top = logits.detach().scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    torch.testing.assert_close(
        scores.margin, logits.detach().gather(1, labels.unsqueeze(1)).squeeze(1) - top
    )


def test_features_give_the_norm_of_the_last_layer() -> None:
    layer = torch.nn.Linear(5, 7).double()
    features, labels = torch.randn(4, 5, dtype=torch.float64), torch.arange(4)
    logits = layer(features)
    scores = reference.score(logits.detach(), labels, features=features)
    for row in range(4):
        loss = functional.cross_entropy(logits[row], labels[row])
        parts = torch.autograd.grad(loss, tuple(layer.parameters()), retain_graph=True)
        norm = torch.cat([part.flatten() for part in parts]).norm()
        torch.testing.assert_close(scores.grad_norm[row], norm)


def test_cross_entropy_is_torchs() -> None:
    logits, labels = batch(12, 9, torch.float64)
    labels[3] = -100
    soft = torch.softmax(logits.flip(0), 1)
    for target in (labels, soft):
        for smoothing in (0.0, 0.3):
            own, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
            loss, scores = reference.cross_entropy(own, target, label_smoothing=smoothing)
            expected = functional.cross_entropy(other, target, label_smoothing=smoothing)
            torch.testing.assert_close(loss, expected)
            loss.backward()
            expected.backward()
            assert own.grad is not None and other.grad is not None
            torch.testing.assert_close(own.grad, other.grad)
            rows = (target != -100).sum() if target is labels else 12
            torch.testing.assert_close(scores.grad_norm, other.grad.norm(dim=1) * rows)


def test_weighted_mean_is_over_the_rows_that_count() -> None:
    logits, labels = batch(6, 4, torch.float64)
    labels[2] = -100
    weight = torch.arange(6.0, dtype=torch.float64)
    loss, scores = reference.cross_entropy(logits, labels, weight)
    assert scores.loss[2] == 0
    torch.testing.assert_close(loss, (scores.loss * weight).sum() / 5)
