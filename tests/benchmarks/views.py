"""A view of 100 samples that no policy has seen, for tests that compare plans."""

from __future__ import annotations

import numpy as np

from hvdfilter.policies import View


def view(epoch: int) -> View:
    """Of a world of one, without columns."""
    return View(
        epoch=epoch,
        epochs=5,
        num_samples=100,
        start=0,
        stop=100,
        seed=3,
        column=lambda name: np.zeros(100, np.float32),
        mean=lambda name: 0.0,
        quantiles=lambda name, q: np.zeros(1, np.float32),
    )
