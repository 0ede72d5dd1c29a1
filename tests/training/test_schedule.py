"""The schedule's values: warm-up, peak, cosine."""

from __future__ import annotations

import math

import pytest

from hvdfilter.training.schedule import schedule


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 0.1), (1.5, 0.55), (3, 1.0), (16.5, 0.5), (30, 0.0), (9.75, 0.5 + math.sqrt(0.125))],
)
def test_schedule_warms_up_then_follows_the_cosine(progress: float, factor: float) -> None:
    assert schedule(progress, 30, 3) == pytest.approx(factor)


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    assert schedule(0, 10, 0) == 1
