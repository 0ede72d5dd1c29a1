"""Logits that are hard to score, and the comparison with a float64 reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.scoring import Scores

# Class counts by regime: one; fewer and more than a vector of 4, 8 or 16 lanes holds, and twice as
# many of 16 bits, with and without a rest; the last narrow count and the first wide one of each
# vector width (64, 128, 256); several rows a group; one segment (1024, 2048 or 4096 classes), one
# more, and half a step more (1032, 2064, 4128); many segments with a rest.
CLASSES = (
    *(1, 2, 3, 5, 10, 16, 17, 32, 33, 64, 65, 100, 128, 129, 256, 257),
    *(1000, 1024, 1025, 1032, 2064, 4096, 4097, 4128, 20011),
)

# One more and one less than the rows of a group, and none.
ROWS = (0, 1, 15, 33)


def batch(rows: int, classes: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits and labels, with the first and the last class among the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator) * 8
    labels = torch.randint(0, classes, (rows,), generator=generator)
    if rows:
        labels[0], labels[-1] = 0, classes - 1
    return logits.to(dtype), labels


def gap_batch(gap: float, classes: int) -> tuple[Tensor, Tensor]:
    """Rows whose target leads, or trails, the largest other logit by `gap`, anywhere in the row."""
    rows = min(classes, 20)
    logits, _ = batch(2 * rows, classes, torch.float32, seed=classes)
    logits = logits.clamp(-20, 20)
    labels = torch.arange(2 * rows) % classes
    rivals = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    sign = torch.where(torch.arange(2 * rows) < rows, 1.0, -1.0)
    own = torch.where(rivals.isinf(), 0, rivals) + sign * gap
    return logits.scatter(1, labels.unsqueeze(1), own.unsqueeze(1)), labels


def assert_scores_close(found: Scores, expected: Scores, relative: float = 2e-6) -> None:
    """Every field within `relative` of the reference; a float32 below 1e-37 to its own spacing."""
    assert torch.equal(found.correct, expected.correct)
    for name in ("loss", "grad_norm", "confidence", "margin"):
        a, b = getattr(found, name).double(), getattr(expected, name).double()
        same = a == b
        error = torch.where(same, 0, (a - b).abs() - 3e-45)
        assert (error <= relative * b.abs()).all(), (name, a[error.argmax()], b[error.argmax()])
