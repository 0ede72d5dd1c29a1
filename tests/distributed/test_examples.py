"""The examples run as they stand, and adopting hvdfilter is the lines the README counts."""

from __future__ import annotations

import difflib
import re
import sys

import pytest

from tests.distributed.launch import ROOT, check_ranks, mpirun, run_command


@pytest.mark.distributed
@pytest.mark.parametrize("script", ["plain_horovod.py", "filtered_horovod.py"])
def test_example_trains_on_two_ranks(script: str) -> None:
    command = [mpirun(), "--oversubscribe", "--bind-to", "none", "-np", "2", sys.executable]
    done = run_command([*command, str(ROOT / "examples" / script), "--epochs", "10"], timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("test accuracy")[1]) > 0.85


@pytest.mark.distributed
def test_ddp_under_torchrun() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = str(ROOT / "examples" / "filtered_ddp.py")
    done = run_command([*command, script, "--epochs", "10"], timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("test accuracy")[1]) > 0.85


@pytest.mark.distributed
def test_a_loss_of_ones_own_and_a_scheduler_that_ends() -> None:
    out = check_ranks((ROOT / "examples" / "own_loss.py").read_text(), 2)
    error, rate = re.findall(r"test error (\S+) of 1, last rate (\S+)", out)[0]
    assert float(error) < 0.8  # of the variance; a linear fit leaves half
    assert float(rate) < 2e-5  # OneCycleLR ends at 0.05 / 25 / 10,000, a step after the last


@pytest.mark.distributed
def test_a_language_model() -> None:
    out = check_ranks((ROOT / "examples" / "language_model.py").read_text(), 2)
    loss, hidden = re.findall(r"training loss (\S+), hidden (\d+) of 371", out)[0]
    assert float(loss) < 2.6 and int(hidden) > 0  # 3.2 by the frequencies of letters alone


def test_adoption_is_four_new_lines_and_three_changed_ones() -> None:
    plain, filtered = (
        (ROOT / "examples" / name).read_text().split('"""', 2)[2].splitlines()
        for name in ("plain_horovod.py", "filtered_horovod.py")
    )
    lines = [line for line in difflib.ndiff(plain, filtered) if line[2:].strip()]
    added = [line for line in lines if line.startswith("+ ")]
    removed = [line for line in lines if line.startswith("- ")]
    # New: the import, the filter, the start of an epoch, the last end. Changed: the loader, the
    # loop's header and the loss. What went (torch's sampler, its epoch, two imports) isn't counted.
    ours = [line for line in added if "hf." in line or "filt." in line or "ids" in line]
    assert len(ours) == 6 and len(added) == 8, added
    assert "+ import hvdfilter as hf" in added and len(removed) == 7
