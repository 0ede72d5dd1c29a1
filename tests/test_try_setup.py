"""Set-up on machines of every kind, from fresh clones of HEAD: minutes each, so `slow`.

What the last run of each case gave is in docs/setup-trials.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import trial_bad, trial_cases, trial_wheel

ROOT = Path(__file__).resolve().parents[1]
CASES = trial_cases.CASES
assert trial_bad.case is trial_wheel.case is trial_cases.case  # they fill the one list


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_set_up_behaves(name: str) -> None:
    command = [sys.executable, "-m", "scripts.try_setup", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
