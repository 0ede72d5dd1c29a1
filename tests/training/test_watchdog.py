"""The watchdog: who is silent is named, and who goes on is left alone. Each in its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import torch
from hvdfilter.agreement import SoloCollective
from hvdfilter.training.watchdog import FOLDER, Watchdog
from hvdfilter.world import World

folder, other, beating = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "beating"
(folder / FOLDER).mkdir()
sign = folder / FOLDER / "1"
def live():
    for number in range(10**6):
        progress = 0 if other == "stuck" else number
        sign.write_text(json.dumps([number, progress, "a slow disk", "rank 1 on node2"]))
        time.sleep(0.02)
if other == "stopped":
    sign.write_text(json.dumps([5, 5, "somewhere", "rank 1 on node2"]))
else:
    threading.Thread(target=live, daemon=True).start()
with Watchdog(0.8) as watchdog:
    if other != "nobody":
        watchdog.attach(folder, World(0, 2, 0, torch.device("cpu"), SoloCollective()))
    for step in watchdog.over(range(4), "epoch 3, training"):
        time.sleep(0.1)
    until = time.monotonic() + 4
    while time.monotonic() < until:
        if beating:
            watchdog.beat("epoch 4")
        time.sleep(0.05)
if beating:
    time.sleep(1.2)  # the run is over: a script takes its time
print("went on")
"""


def run(folder: Path, other: str, own: str = "silent") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), other, own],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_rank_without_a_sign_of_life_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "stopped")
    assert done.returncode == 1
    assert "rank 0: no progress for 0.8 s, at epoch 3, training, batch 4" in done.stderr
    assert "rank 1 on node2 gives no sign of life" in done.stderr


def test_a_rank_that_lives_and_comes_no_further_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "stuck")
    assert done.returncode == 1
    assert (
        "rank 1 on node2 is the furthest behind, at a slow disk (or the network between"
        in done.stderr
    )


def test_before_there_is_a_run_it_says_where_it_is(tmp_path: Path) -> None:
    done = run(tmp_path, "nobody")
    assert done.returncode == 1
    # Whichever is first: the thread's sentence, or the interpreter's own, which needs no thread.
    assert "no progress for 0.8 s" in done.stderr or "Timeout" in done.stderr


def test_before_there_is_a_run_who_comes_on_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "nobody", "beating")  # as while images are decoded, for hours
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr


def test_who_comes_on_is_left_alone_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "well", "beating")
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert not (tmp_path / "alive" / "0").exists()
