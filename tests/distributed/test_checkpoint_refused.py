"""A checkpoint that cannot be taken up is one sentence, and ends every rank within seconds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvdfilter.agreement.history import HISTORY
from hvdfilter.training import checkpoint
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.world import current
from tests.distributed.launch import run_ranks
from tests.training.cases import finish

# The command line on every rank, and what it returned there.
PROGRAM = """
import sys
from hvdfilter.cli import main
code = main(sys.argv[1:])
print(f"code {code}", flush=True)
sys.exit(code)
"""
NAMES = {getattr(field, "name", field) for field in HISTORY}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in the middle of its second epoch."""
    config = TrainConfig(
        data="synthetic:60,1,8,8,4", model="cnn:4", epochs=3, batch_size=10, warmup_epochs=0,
        policy="loss", policy_options={"keep": 0.5}, runs=tmp_path_factory.mktemp("cut"),
        name="run",
    )  # fmt: skip
    finish(Trainer(config, current()), after=7)
    return tmp_path_factory.getbasetemp() / config.runs.name / "run"


def rewritten(run: Path, change: Callable[[dict], None], what: str) -> None:
    """The newest checkpoint's file of this kind, changed and sealed again; older ones are gone."""
    files = sorted((run / "checkpoints").iterdir())
    tag = files[-1].name.split(".")[0]
    for path in files:
        if path.name.split(".")[0] != tag:
            path.unlink()
        elif f".{what}" in path.name:
            state = checkpoint.decode(checkpoint.read(path), path)
            change(state)
            path.unlink()
            stem = path.name.rsplit(".", 2)[0]
            checkpoint.write(path.parent, stem, *checkpoint.encode(state))


def without_history(rows: dict) -> None:
    """What a version before history, or `history=False`, has written."""
    for name in list(rows):
        kind, _, field = name.partition("/")
        if kind in ("column", "pending") and field in NAMES - {"loss"}:
            del rows[name]


def damaged(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        data = np.frombuffer(path.read_bytes(), np.uint8).copy()
        data[len(data) // 2] ^= 1
        path.write_bytes(data.tobytes())


def another_format(run: Path) -> None:
    for path in (run / "checkpoints").glob("*.state.*"):  # which every rank reads by itself
        data = path.read_bytes().replace(checkpoint.FORMAT.encode(), b"hvdfilter-checkpoint-9")
        sealed = f"{path.name.rsplit('.', 2)[0]}.{checkpoint.digest(data)}{checkpoint.SUFFIX}"
        path.unlink()
        (path.parent / sealed).write_bytes(data)


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "history": (
        lambda run: rewritten(run, without_history, "rows"),
        "the saved filter noted no confidence of ",
    ),
    "damaged": (damaged, "is whole (checkpoint "),
    "format": (another_format, "is not a checkpoint of this hvdfilter"),
}


@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES)
def test_every_rank_is_told_and_ends(cut: Path, tmp_path: Path, case: str) -> None:
    change, sentence = CASES[case]
    shutil.copytree(cut, tmp_path / "run")
    change(tmp_path / "run")
    words = ["--data", "synthetic:60,1,8,8,4", "--model", "cnn:4", "--epochs", "3"]
    words += ["--batch-size", "10", "--warmup-epochs", "0", "--policy", "loss"]
    words += ["--policy-options.keep", "0.5", "--runs", str(tmp_path), "--name", "run", "--resume"]
    started = time.monotonic()
    done = run_ranks(PROGRAM, 2, "train", *words, timeout=60)
    took = time.monotonic() - started
    said = [line for line in done.stderr.splitlines() if line.startswith("hvdfilter: error: ")]
    assert len(said) == 1 and sentence in said[0], done.stderr[-2000:]
    assert done.stdout.count("code 2") == 2  # none was ended by another's abort
    assert done.returncode == 2 and "MPI_ABORT" not in done.stdout + done.stderr
    assert took < 30
