"""The learning rate as a function of progress: linear warm-up, then a half cosine.

Progress is counted in epochs, not steps, so runs with fewer steps an epoch follow the same curve.
"""

from __future__ import annotations

import math

WARMUP_START = 0.1


def schedule(progress: float, epochs: int, warmup: float) -> float:
    """The rate as a multiple of its peak, `progress` epochs into `epochs`.

    Linear from `WARMUP_START` to 1 over the first `warmup` epochs (Goyal et al. 2017, section
    2.2), then a half cosine down to 0 (Loshchilov and Hutter 2017).
    """
    if progress < warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (epochs - warmup)))
