"""The arithmetic of the epoch-time benchmark: ratios of turns of the same round."""

from __future__ import annotations

import pytest

from benchmarks.epoch_time import ratios


def test_ratios_are_of_the_same_round() -> None:
    # The second round runs on a machine half as fast: its ratios are those of the first.
    first = {"plain": 10.0, "full": 10.1, "noted": 10.2, "random": 7.07, "rescored": 8.08}
    seconds = {
        name: [(value, 0.101 * 9), (2 * value, 2 * 0.101 * 9)] for name, value in first.items()
    }
    found = ratios(seconds, hide=0.3)
    assert found["full / plain"] == pytest.approx([1.01, 1.01])
    assert found["noted / plain"] == pytest.approx([1.02, 1.02])
    assert found["random: saved / hidden"] == pytest.approx([1.0, 1.0])
    assert found["rescored: saved / hidden"] == pytest.approx([2 / 3, 2 / 3])
    # 0.909 s for 30 % of the samples, of which all take 10.1 s to train.
    assert found["re-scoring / training, a sample"] == pytest.approx([0.3, 0.3])
