"""One trace of torch's profiler and Horovod's timeline, on one clock, from two real ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hvdfilter.telemetry.trace import HOROVOD, before, shifted
from tests.distributed.launch import mpirun, run_command


@pytest.mark.distributed
def test_gradients_travel_within_the_steps_that_made_them(tmp_path: Path) -> None:
    flags = ["--oversubscribe", "--bind-to", "none", "-np", "2"]
    train = "train --data synthetic:192,1,8,8,4 --epochs 2 --batch-size 8 --policy full".split()
    command = [mpirun(), *flags, sys.executable, "-m", "hvdfilter", *train]
    done = run_command(
        [*command, "--runs", str(tmp_path), "--name", "one", "--profile", "4"], timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "one"
    assert not list(run.glob("profile-*")) and not list(run.glob("horovod-*"))
    trace = json.loads((run / "profile.json").read_text())
    events = trace["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    horovod = next(pid for pid, name in names.items() if name == "Horovod")
    threads = {
        e["tid"]: e["args"]["name"]
        for e in events
        if e["pid"] == horovod and e.get("name") == "thread_name"
    }
    # The parts of costs.py, as ranges of torch's.
    assert {"data"} <= {e.get("name") for e in events}
    steps = sorted(
        (e["ts"], e["ts"] + e["dur"])
        for e in events
        if str(e.get("name", "")).startswith("Optimizer.step#") and e.get("ph") == "X"
    )
    begun = [e["ts"] for e in events if e["pid"] == horovod and e.get("ph") == "B"]
    ended = [e["ts"] for e in events if e["pid"] == horovod and e.get("ph") == "E"]
    # The network has ten tensors of weights, and each is negotiated and reduced in four steps.
    assert len(begun) == len(ended) >= 4 * 10 * 2
    assert any("weight" in name for name in threads.values())
    # Clocks: tensors are reduced after the first step's first batch and before the last step's end,
    # whatever else the machine does, for rank 0 takes part. (A negotiation may begin earlier: the
    # other rank can be ready a step ahead.) A step takes some 60 ms here; another clock's zero
    # would be seconds or decades away.
    last = max(end for _, end in steps)
    first = min(e["ts"] for e in events if e.get("name") == "data" and e.get("ph") == "X")
    reduced = [
        e["ts"]
        for e in events
        if e["pid"] == horovod and e.get("ph") == "B" and not e["name"].startswith("NEGOTIATE")
    ]
    assert len(reduced) >= 4 * 10 and first < min(reduced) and max(ended) < last + 20_000


def event(ph: str, ts: float, thread: int = 1, **more: object) -> dict:
    return {"ph": ph, "ts": ts, "pid": thread, **more}


def test_the_timeline_is_shifted_and_cut() -> None:
    # Two tensors, three operations: one whole, one that began before the cut, one after it.
    zero = {"start_time_since_epoch_in_micros": 1_000_000}
    timeline = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": zero},
        {"ph": "M", "name": "process_sort_index", "pid": 0, "args": {"sort_index": 0}},
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "conv.weight"}},
        *(event("B", 10, name="NEGOTIATE"), event("X", 12, name="0", dur=0), event("E", 15)),
        *(event("B", 20, 2, name="ALLREDUCE"), event("B", 22, 2, name="MEMCPY")),
        *(event("E", 60, 2), event("B", 70, name="NEGOTIATE"), event("E", 80)),
    ]
    found = before(shifted(timeline, 999_900.0), 150.0)
    assert found[0]["args"] == {"name": "Horovod"}
    assert found[1] == {
        **{"ph": "M", "name": "thread_name", "pid": HOROVOD, "tid": 1},
        "args": {"name": "conv.weight"},
    }
    told = [(e["ph"], e["ts"], e["tid"]) for e in found[2:]]
    assert told == [
        *(("B", 110, 1), ("X", 112, 1), ("E", 115, 1)),
        *(("B", 120, 2), ("B", 122, 2), ("E", 160, 2), ("E", 150.0, 2)),
    ]
    assert {e["pid"] for e in found} == {HOROVOD}
    assert shifted([], 0.0) == []
