"""The scoring functions in plain torch, slow and plainly right: what tests compare with.

Works in the dtype it is given; pass float64 logits for a reference. Never calls a native kernel and
never checks its input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.scoring.scores import Scores


def score(
    logits: Tensor, labels: Tensor, *, features: Tensor | None = None, ignore_index: int = -100
) -> Scores:
    """The same as `hvdfilter.score`, target excluded from every sum.

    Args:
        logits: [B, C] of a floating dtype.
        labels: [B] of an integer dtype.
        features: [B, D] input of the last linear layer, or None.
        ignore_index: rows with this label get zeros.

    Formula: with m the largest other logit, t1 = sum exp(z_i - m) and t2 = sum exp(2 (z_i - m))
    over the other classes, and r = exp(-|z_y - m|).
    """
    kept = labels != ignore_index
    target = torch.where(kept, labels, 0).long().unsqueeze(1)
    z_y = logits.gather(1, target).squeeze(1)
    others = logits.scatter(1, target, -torch.inf)
    m = others.amax(1)
    e = torch.exp(others - torch.where(m.isinf(), 0, m).unsqueeze(1))
    t1, t2 = e.sum(1), (e * e).sum(1)
    gap = z_y - m
    easy = gap > 0
    r = torch.exp(-gap.abs())
    one = torch.ones_like(r)
    total = torch.where(easy, one + t1 * r, t1 + r)
    scores = Scores(
        loss=torch.where(easy, torch.log1p(t1 * r), torch.log(total) - gap),
        grad_norm=torch.where(easy, r, one) * torch.sqrt(t1 * t1 + t2) / total,
        confidence=1 / total,
        margin=gap,
        correct=gap > 0,
    )
    if features is not None:
        scores = scores._replace(grad_norm=scores.grad_norm * last_layer_factor(features))
    return Scores(*(torch.where(kept, field, torch.zeros_like(field)) for field in scores))


def last_layer_factor(features: Tensor) -> Tensor:
    """[B] `sqrt(||h||^2 + 1)`: from the logit norm to that of a linear layer's weight and bias."""
    return torch.sqrt(features.square().sum(1) + 1)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    features: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> tuple[Tensor, Scores]:
    """The same as `hvdfilter.cross_entropy`, differentiable by autograd alone.

    Labels are class numbers [B] or soft labels [B, C]; the scores' margin is then the one of the
    most likely class. Textbook forms for spread targets, which have no easy tail to lose.
    """
    classes = logits.shape[1]
    soft = labels.is_floating_point()
    hard = labels.argmax(1) if soft else labels
    kept = torch.ones_like(hard, dtype=torch.bool) if soft else labels != ignore_index
    safe = torch.where(kept, hard, 0).long()
    target = labels if soft else torch.nn.functional.one_hot(safe, classes)
    target = target.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / classes
    log_p = torch.log_softmax(logits, 1)
    losses = -torch.where(target > 0, target * log_p, 0).sum(1)
    scores = score(logits.detach(), hard, ignore_index=ignore_index if not soft else -1)
    if soft or label_smoothing > 0:
        norms = (log_p.exp() * target.sum(1, keepdim=True) - target).norm(dim=1)
        scores = scores._replace(
            loss=torch.where(kept, losses, 0).detach(),
            grad_norm=torch.where(kept, norms, 0).detach(),
        )
    if features is not None:
        scores = scores._replace(grad_norm=scores.grad_norm * last_layer_factor(features))
    factor = kept.to(losses.dtype) if weight is None else torch.where(kept, weight, 0)
    total = torch.where(kept, losses * factor, 0).sum() / kept.sum().clamp(min=1)
    return total, scores
