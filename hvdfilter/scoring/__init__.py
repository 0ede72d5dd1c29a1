"""Scoring: logits to per-sample loss and gradient norm, on the device they are on.

Knows nothing of ranks, ids or epochs. `linear` is imported by who needs it: it brings torch's
compiler with it, which takes as long to import as torch itself.
"""

from hvdfilter.scoring.arguments import BadRowsError, check
from hvdfilter.scoring.cross_entropy import cross_entropy
from hvdfilter.scoring.grad_norm import GradNorm
from hvdfilter.scoring.score import score
from hvdfilter.scoring.scores import Scores

__all__ = [
    "BadRowsError",
    "GradNorm",
    "Scores",
    "check",
    "cross_entropy",
    "score",
]
