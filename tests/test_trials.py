"""The trials that the documentation tells of, a few of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(900)
def test_a_run_disturbed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    page = tmp_path / "trials.md"
    words = ["--trials", "6", "--seed", "7", "--out", str(page)]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.trials", *words],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 as they should be." in page.read_text()
