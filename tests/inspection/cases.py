"""Samples whose scores are known, as a run folder would give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hvdfilter.inspection.samples import Samples

N = 60


def known(labels: bool = True) -> Samples:
    """60 samples of 3 classes; the last was never trained."""
    rng = np.random.default_rng(0)
    columns = {
        "loss": rng.exponential(size=N).astype(np.float32),
        "confidence": rng.random(N).astype(np.float32),
        "margin": rng.normal(size=N).astype(np.float32),
        "margin_mean": np.round(rng.normal(1, 2, N), 1).astype(np.float32),  # with ties
        "hidden_epochs": rng.integers(0, 4, N).astype(np.uint16),
        "observations": np.full(N, 5, np.uint16),
    }
    columns["margin_mean"][-1] = np.inf
    columns["loss"][-1] = np.inf
    given = np.arange(N) % 3 if labels else np.full(N, -1)
    return Samples(Path("runs/known"), given.astype(np.int64), columns, 5)
