"""An exception that nobody foresaw: one sentence, its traceback kept; all of it with --debug."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import mpirun, run_command

OWN = """
def net(in_channels, num_classes, image_size):
    import torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(in_channels * image_size**2, num_classes)
        def forward(self, x):
            {fault}
            return self.layer(x.flatten(1))
    return Net()
"""
TRAIN = "train --data synthetic:64,1,8,8,4 --epochs 1 --model own:net".split()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN.format(fault="1 / 0"))
    return tmp_path


def train(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hvdfilter", *TRAIN, *words]
    return run_command(command, env={"TMPDIR": str(here)}, cwd=here)


def test_one_sentence_and_where_the_rest_is(here: Path) -> None:
    done = train(here)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("hvdfilter: error: ZeroDivisionError: division by zero, in ")
    assert "own.py:9" in line and "--debug prints the whole traceback" in line
    kept = re.search(r"(\S+-traceback\.txt) has the traceback", line)
    assert kept is not None
    assert "ZeroDivisionError" in Path(kept[1]).read_text().splitlines()[-1]


def test_debug_prints_it_all(here: Path) -> None:
    done = train(here, "--debug")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr and "1 / 0" in done.stderr
    assert not list(here.glob("*-traceback.txt"))


def test_debug_shows_where_a_refusal_came_from(here: Path) -> None:
    done = train(here, "--debug", "--seed", "-1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr and "config.py" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "hvdfilter: error: seed=-1 must be at least 0"


@pytest.mark.distributed
def test_it_ends_the_other_ranks_too(tmp_path: Path) -> None:
    # One rank of two: the other waits in a collective, until it is ended.
    fault = "from hvdfilter.world import current\n            assert current().rank != 1, 'odd'"
    (tmp_path / "own.py").write_text(OWN.format(fault=fault))
    flags = ["--oversubscribe", "--bind-to", "none", "-np", "2"]
    command = [mpirun(), *flags, sys.executable, "-m", "hvdfilter", *TRAIN]
    done = run_command(command, timeout=60, env={"TMPDIR": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("hvdfilter: error:")]
    assert len(said) == 1 and "rank 1" in said[0] and "AssertionError: odd" in said[0]


def test_ctrl_c_is_a_word(here: Path) -> None:
    (here / "own.py").write_text(OWN.format(fault="raise KeyboardInterrupt"))
    done = train(here)
    assert done.stderr.splitlines() == ["hvdfilter: error: interrupted"]
    assert done.returncode in (-2, 130)
