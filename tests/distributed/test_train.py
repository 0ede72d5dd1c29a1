"""The main job on real ranks: what it leaves, that ranks train one model, and how it refuses.

Small synthetic sets and two or three epochs: enough for a warm-up, an agreement and a hidden pass.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvdfilter.training.preemption import EXIT_CODE
from tests.distributed.launch import ROOT, check_ranks, environment, mpirun, run_command

pytestmark = pytest.mark.distributed
SMALL = "--data synthetic:96,1,8,8,4 --epochs 3 --warmup_epochs 1 --policy_options.warmup 1".split()


def launch(ranks: int, *options: str) -> list[str]:
    flags = ["--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    return [mpirun(), *flags, sys.executable, "-m", "hvdfilter.cli", *options]


def train(folder: Path, ranks: int, *options: str, name: str = "run") -> list[dict]:
    command = launch(ranks, "train", "--runs", str(folder), "--name", name, *options)
    done = run_command(command, timeout=90)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def test_ranks_train_the_model_that_one_process_trains(tmp_path: Path) -> None:
    # Batch 12 on one rank, 4 on three: the same global batches, so the averaged gradients, masks
    # and losses agree to rounding. (A rate, a shard or an allreduce gone wrong moves them by far.)
    runs = {
        ranks: train(tmp_path, ranks, *SMALL, "--batch_size", str(12 // ranks), name=f"on{ranks}")
        for ranks in (1, 2, 3)
    }
    for records in runs.values():
        assert [r["hidden"] for r in records] == [r["hidden"] for r in runs[1]]
        for mine, alone in zip(records, runs[1], strict=True):
            assert mine["test_loss"] == pytest.approx(alone["test_loss"], rel=2e-3)
    assert runs[2][0]["steps"] == 8 == runs[2][0]["steps_full"]


def test_the_record_of_a_run_adds_up(tmp_path: Path) -> None:
    # tau 0 and a set that is easy to learn, so that samples are hidden in the last epoch.
    records = train(tmp_path, 2, *SMALL, "--policy_options.tau", "0", "--epochs", "4")
    assert [r["epoch"] for r in records] == [0, 1, 2, 3]
    for r in records:
        assert r["kept"] + r["hidden"] == r["samples"] == 96
        shard = -(-r["kept"] // 2)
        assert r["steps"] == -(-shard // 32)
        assert r["allreduce_calls"] + r["allreduce_calls_saved"] == r["steps_full"] * 10
        per_step = r["gradient_bytes"] / r["steps"]
        assert r["gradient_bytes_saved"] == per_step * (r["steps_full"] - r["steps"])
        assert r["lr_scale"] == pytest.approx(96 / r["kept"])
        assert {"training", "scoring", "exchange", "agreement"} <= set(r["seconds"])
        # Four fields of four bytes for each sample that had to travel, plus counts.
        assert 0 < r["bytes_sent"]["exchange"] <= 96 * 16 + 400
        # Each of the samples stands in one class, in one bin, and was trained some epochs ago.
        assert sum(r["classes"]["samples"]) == 96 and sum(r["classes"]["kept"]) == r["kept"]
        assert sum(r["mask"]["since_seen"]) == 96 and r["mask"]["since_seen"][0] == r["kept"]
        assert r["seconds"]["history"] > 0 and r["bytes_sent"]["history"] < 8000
        for score in r.get("scores", {}).values():
            assert len(score["edges"]) == len(score["kept"]) + 1 == len(score["hidden"]) + 1
            assert (sum(score["kept"]), sum(score["hidden"])) == (r["kept"], r["hidden"])
    assert [sorted(r.get("scores", {})) for r in records] == [
        [],
        *[["confidence", "loss", "margin"]] * 3,
    ]
    assert records[-1]["hidden"] > 0 and "rescoring" in records[-1]["seconds"]
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir() if not p.name.startswith("events.out.tfevents")} == {
        "config.yaml",
        "metrics.jsonl",
        "checkpoints",
    }


def worker_pids(arguments: str) -> list[int]:
    """The Python processes, not the launcher, with these arguments."""
    found = subprocess.run(["pgrep", "-f", "--", arguments], capture_output=True, text=True)
    names = {int(pid): Path(f"/proc/{pid}/comm") for pid in found.stdout.split()}
    # torch 2.4 gives the process another name.
    ours = ("python", "pt_main_thread")
    return [pid for pid, comm in names.items() if comm.read_text().startswith(ours)]


def test_resume_after_preemption_ends_as_if_undisturbed(tmp_path: Path) -> None:
    # Big enough for the signal to land within the training; the exact step does not matter.
    options = "--data synthetic:800,1,16,16,4 --epochs 4 --warmup_epochs 1 --batch_size 8".split()
    options += ["--policy_options.warmup", "1", "--policy_options.tau", "0"]
    whole = train(tmp_path, 2, *options, name="whole")
    metrics = tmp_path / "cut" / "metrics.jsonl"
    with subprocess.Popen(
        launch(2, "train", "--runs", str(tmp_path), "--name", "cut", *options),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (metrics.exists() and metrics.read_text().count("\n") >= 1):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            # One rank only is warned, as when one node is reclaimed; all stop at the same step.
            os.kill(worker_pids("--name cut")[-1], signal.SIGUSR1)
            output = process.communicate(timeout=60)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == EXIT_CODE, output
    assert "--name cut --resume true" in output
    assert metrics.read_text().count("\n") < 4
    resumed = train(tmp_path, 2, *options, "--resume", "true", name="cut")
    assert [r["mask_digest"] for r in resumed] == [r["mask_digest"] for r in whole]
    assert resumed[-1]["test_loss"] == pytest.approx(whole[-1]["test_loss"], rel=1e-5)


STOP_AFTER_TWO_EPOCHS = """
import sys
from pathlib import Path
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
class Stop(Exception): pass
def report(record):
    if record["epoch"] == 2:  # the last checkpoint is that of the epoch before
        raise Stop
config = TrainConfig(data="synthetic:96,1,8,8,4", epochs=4, warmup_epochs=1, batch_size=6,
    policy_options={"warmup": 1, "tau": 0.0}, runs=Path(sys.argv[1]), name="moved")
try:
    train(config, report=report)
except Stop:
    pass
"""


def test_a_run_resumes_on_another_number_of_ranks(tmp_path: Path) -> None:
    # Two epochs on two ranks, the rest on three with the same global batch. The mask of the third
    # epoch comes of the restored score book, so it is exactly that of a run left alone on two; from
    # there on losses differ in rounding, and a mask may in a sample at the threshold.
    options = [*SMALL, "--epochs", "4", "--policy_options.tau", "0"]
    whole = train(tmp_path, 2, *options, "--batch_size", "6", name="whole")
    check_ranks(STOP_AFTER_TWO_EPOCHS, 2, str(tmp_path))
    again = train(tmp_path, 3, *options, "--batch_size", "4", "--resume", "true", name="moved")
    assert [r["ranks"] for r in again] == [2, 2, 3, 3]
    assert [r["mask_digest"] for r in again[:3]] == [r["mask_digest"] for r in whole[:3]]
    assert again[2]["hidden"] > 0
    assert again[-1]["test_loss"] == pytest.approx(whole[-1]["test_loss"], rel=2e-2)


# What has to reach every rank; the other mistakes are in tests/test_cli.py, without ranks.
@pytest.mark.parametrize(
    ("ranks", "options", "sentence"),
    [
        (2, ["--policy", "kakurembo"], "did you mean kakurenbo"),
        (2, ["--data", "idx:/nowhere"], "/nowhere"),
        (2, ["--config", "/dev/null"], "/dev/null: is a device"),
        (2, ["--epochs", "three"], "three"),
        (3, ["--data", "synthetic:2,1,8,8,2"], "2 samples cannot be shared by 3 ranks"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    tmp_path: Path, ranks: int, options: list[str], sentence: str
) -> None:
    done = run_command(launch(ranks, "train", "--runs", str(tmp_path), *options), timeout=40)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("hvdfilter: error:")]
    assert len(said) == 1 and sentence in said[0], done.stderr
    assert "Traceback" not in done.stderr


def test_a_named_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path, 1, *SMALL)
    done = run_command(launch(1, "train", "--runs", str(tmp_path), "--name", "run", *SMALL))
    assert done.returncode == 2 and "exists: continue it with --resume true" in done.stderr
