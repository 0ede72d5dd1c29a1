"""The promise of the main job on real data: the accuracy of the full run, a fifth of it hidden.

Slow because it trains twice for 30 epochs; the bounds are those of README.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.test_train import train


@pytest.mark.slow
@pytest.mark.distributed
def test_kakurenbo_is_as_accurate_as_the_full_run_on_digits(tmp_path: Path) -> None:
    full, filtered = (
        train(tmp_path, 2, "--policy", policy, name=policy) for policy in ("full", "kakurenbo")
    )
    assert full[-1]["test_accuracy"] >= 0.97
    assert filtered[-1]["test_accuracy"] >= full[-1]["test_accuracy"] - 0.01
    middle = filtered[len(filtered) // 2]
    assert middle["hidden"] >= 0.2 * middle["samples"]
    assert sum(r["steps"] for r in filtered) < 0.85 * sum(r["steps"] for r in full)
