"""The compiled modules: loading, the choice of an instruction set, and every set's results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from hvdfilter import native

ROOT = Path(__file__).resolve().parent.parent
SETS = ("baseline", "avx2", "avx512")


def under(instruction_set: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A Python process with that instruction set asked for."""
    environment = {**os.environ, "HVDFILTER_ISA": instruction_set}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


def supported(instruction_set: str) -> bool:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    needed = {"baseline": [], "avx2": ["avx2", "fma", "bmi2"], "avx512": ["avx512bw", "avx512vl"]}
    return all(flag in flags for flag in needed[instruction_set])


def test_kernels_name_what_is_in_use() -> None:
    kernels = native.kernels()
    assert kernels["cpu"] in SETS
    assert kernels["cuda"] in ("loaded", "not loaded")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has several sets")
@pytest.mark.parametrize("name", SETS)
def test_every_instruction_set_passes_the_scoring_tests(name: str) -> None:
    if not supported(name):
        pytest.skip(f"this processor has no {name}")
    asked = under(name, "-c", "from hvdfilter import native; print(native.kernels()['cpu'])")
    assert asked.stdout.strip() == name, asked.stderr
    if name == native.kernels()["cpu"]:
        return  # the tests themselves ran on it
    # Packed rows, one row a sweep, several segments, spread targets, and what must be refused.
    tests = ["tests/scoring/test_score.py"]
    gradients = ("soft_labels[0.2-65]", *(f"hard_labels[{c}]" for c in (10, 100, 1000, 4097)))
    tests += [f"tests/scoring/test_cross_entropy.py::test_{case}" for case in gradients]
    result = under(name, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    assert result.returncode == 0, result.stdout[-3000:]


def test_an_instruction_set_that_is_unknown_is_not_guessed() -> None:
    result = under("sse9", "-c", "from hvdfilter import native; print(native.kernels()['cpu'])")
    assert result.returncode != 0
    assert "HVDFILTER_ISA" in result.stderr and "sse9" in result.stderr
