"""Exact full-model gradient norms of every sample, from one ordinary backward.

One file per layer family; README.md says what each costs. Nothing here computes a loss.
"""

from hvdfilter.scoring.grad_norm.manager import GradNorm

__all__ = ["GradNorm"]
