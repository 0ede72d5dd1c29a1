"""The random baselines: exact counts, fresh or fixed, and uniform."""

from __future__ import annotations

import numpy as np
import pytest

from hvdfilter.agreement import Blocks, SoloCollective, select
from hvdfilter.policies import View, make


def kept(policy: str, n: int, epoch: int, seed: int = 0, **options: float) -> np.ndarray:
    view = View(epoch, 10, n, 0, n, seed, {}.__getitem__, {}.__getitem__, {}.__getitem__)
    plan = make(policy, **options).plan(view)
    return select(plan.key, plan.keep, Blocks(n, 1), SoloCollective())


# 0.9 and 0.7 of 1000 are numbers whose complement in binary is not exact: no sample more or less.
@pytest.mark.parametrize(
    ("keep", "n", "count"),
    [(0.7, 1000, 700), (0.9, 1000, 900), (1.0, 10, 10), (0.1, 3, 1), (1e-9, 5, 1), (0.55, 20, 11)],
)
@pytest.mark.parametrize("policy", ["random", "static-random"])
def test_keeps_exactly_its_share(policy: str, keep: float, n: int, count: int) -> None:
    assert kept(policy, n, 3, keep=keep).sum() == count


def test_random_is_fresh_each_epoch_and_static_is_not() -> None:
    assert (kept("random", 1000, 1) != kept("random", 1000, 2)).any()
    assert (kept("static-random", 1000, 1) == kept("static-random", 1000, 9)).all()
    assert (kept("static-random", 1000, 1, 0) != kept("static-random", 1000, 1, 1)).any()


def test_random_keeps_every_sample_equally_often() -> None:
    # 400 epochs at keep=0.5: counts are Binomial(400, 0.5); chi-square over 200 samples has mean
    # 200 and deviation 20, so 300 is five deviations away.
    epochs, n = 400, 200
    counts = sum(kept("random", n, epoch, keep=0.5).astype(int) for epoch in range(epochs))
    statistic = float((((counts - epochs / 2) ** 2) / (epochs / 4)).sum())
    assert 110 < statistic < 300


def test_full_keeps_everything() -> None:
    assert kept("full", 17, 0).all()
