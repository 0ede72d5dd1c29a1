"""`--profile` leaves a trace of the run that was asked for, however short or often begun it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hvdfilter.costs import Costs
from hvdfilter.telemetry import profile as module
from hvdfilter.telemetry.profile import Profile
from hvdfilter.telemetry.trace import HOROVOD, merge
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train

# 64 samples by 16: four steps an epoch.
CONFIG = TrainConfig(
    data="synthetic:64,1,8,8,4",
    model="cnn:4",
    epochs=1,
    batch_size=16,
    policy="full",
    name="run",
    warmup_epochs=0,
)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    assert Costs.marks == []


def steps_in(path: Path) -> int:
    """Steps of the optimiser that a trace has, by torch's own name of them."""
    events = json.loads(path.read_text())["traceEvents"]
    names = [str(event.get("name")) for event in events if event.get("ph") == "X"]
    return sum(name.startswith("Optimizer.step#") for name in names)


def warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("hvdfilter: warning: ")]


@pytest.mark.parametrize(
    ("samples", "epochs", "seen"),
    # The first three steps are left out, or all but the last of a run that has no more.
    [(32, 1, 1), (48, 1, 1), (64, 1, 1), (16, 3, 1), (80, 1, 2), (64, 3, 5)],
)
def test_the_last_steps_of_a_short_run_are_seen(
    tmp_path: Path, samples: int, epochs: int, seen: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, data=f"synthetic:{samples},1,8,8,4", epochs=epochs, runs=tmp_path)
    train(config, followers=[Profile(5)])
    assert steps_in(tmp_path / "run" / "profile.json") == seen
    assert not warnings(capsys.readouterr().err)


def test_a_run_without_a_step_to_see_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, data="synthetic:16,1,8,8,4", runs=tmp_path)
    train(config, followers=[Profile(5)])
    assert not (tmp_path / "run" / "profile.json").exists()
    (line,) = warnings(capsys.readouterr().err)
    assert "no profile.json" in line and "after 1 step" in line and "first 3" in line


class Stop(Exception):
    pass


def stopping(after: int) -> Any:
    def stop(epoch: int, step: int, steps: int) -> None:
        if step == after:
            raise Stop

    return stop


def test_a_run_whose_ranks_changed_is_seen_in_its_next_life(tmp_path: Path) -> None:
    # As Horovod's elastic loop has it: one process, its followers told of an end and a beginning.
    config, profile = replace(CONFIG, runs=tmp_path, epochs=2), Profile(2)
    with pytest.raises(Stop):
        train(config, stopping(2), followers=[profile])
    assert not (tmp_path / "run" / "profile.json").exists()
    train(replace(config, resume=True), followers=[profile])
    assert steps_in(tmp_path / "run" / "profile.json") == 2


def test_what_a_life_has_seen_is_not_seen_again(tmp_path: Path) -> None:
    config, profile = replace(CONFIG, runs=tmp_path, epochs=2), Profile(5)
    with pytest.raises(Stop):
        train(config, stopping(4), followers=[profile])
    path = tmp_path / "run" / "profile.json"
    first = path.read_bytes()
    assert steps_in(path) == 1
    train(replace(config, resume=True), followers=[profile])
    assert path.read_bytes() == first


def test_the_run_itself_is_seen_and_not_its_opening(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    options = {"keep": 0.5, "opening": 2, "seeds": 2}
    config = replace(CONFIG, policy="el2n", policy_options=options, epochs=3, runs=tmp_path)
    train(config, followers=[Profile(2)])
    assert [path.parent.name for path in tmp_path.rglob("profile.json")] == ["run"]
    assert steps_in(tmp_path / "run" / "profile.json") == 2


@pytest.mark.parametrize("method", ["start", "stop", "export_chrome_trace"])
def test_a_profiler_that_fails_is_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    def fail(self: Any, *words: Any) -> None:
        if method == "stop":
            whole.stop(self)
        raise RuntimeError("CUPTI\nis gone.")

    whole = torch.profiler.profile
    broken = type("Broken", (whole,), {method: fail})
    monkeypatch.setattr(module, "profile", broken)
    train(replace(CONFIG, runs=tmp_path, name="whole", epochs=3), followers=[Profile(2)])
    (line,) = warnings(capsys.readouterr().err)
    assert "no profile.json" in line and "CUPTI is gone" in line
    with pytest.raises(Stop):  # and where it is stopped by an error, that is the one
        train(replace(CONFIG, runs=tmp_path, epochs=2), stopping(4), followers=[Profile(9)])
    assert len(warnings(capsys.readouterr().err)) == 1


TORCH = {"baseTimeNanoseconds": 10**18, "traceEvents": [{"ph": "X", "name": "a", "ts": 1.0}]}
START = {"start_time_since_epoch_in_micros": 10**15}
TIMELINE: list[dict[str, Any]] = [
    {"ph": "M", "name": "process_name", "pid": 0, "args": START},
    {"ph": "X", "name": "b", "pid": 1, "ts": 2.0, "dur": 1},
]


def test_two_traces_become_one(tmp_path: Path) -> None:
    (tmp_path / "torch").write_text(json.dumps(TORCH))
    (tmp_path / "horovod").write_text(json.dumps(TIMELINE))
    said = merge(tmp_path / "torch", tmp_path / "horovod", 1e15 + 9, tmp_path / "out")
    assert said == ""
    events = json.loads((tmp_path / "out").read_text())["traceEvents"]
    assert events[0] == TORCH["traceEvents"][0]  # type: ignore[index]
    assert {"ph": "X", "name": "b", "pid": HOROVOD, "tid": 1, "ts": 2.0, "dur": 1} in events


@pytest.mark.parametrize(
    "timeline",
    # Cut off, no JSON, no list of events, events without a time or a kind, not there, no text.
    [
        *(b'[{"ph": "X"', b"nothing", b'{"a": 1}', b'[{"ph": "B"}]'),
        *(b"[7]", b'[{"a": 1}]', None, b"\xff"),
    ],
)
def test_without_horovods_part_torchs_own_trace_is_there(
    tmp_path: Path, timeline: bytes | None
) -> None:
    (tmp_path / "torch").write_text(json.dumps(TORCH))
    if timeline is not None:
        (tmp_path / "horovod").write_bytes(timeline)
    said = merge(tmp_path / "torch", tmp_path / "horovod", 1e15, tmp_path / "out")
    assert json.loads((tmp_path / "out").read_text()) == TORCH
    assert "Horovod" in said and "\n" not in said


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_whose_timeline_is_damaged_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gone: bool,
) -> None:
    # In the place of Horovod, which writes none in a world of one. gone: as where a rank was lost.
    def stopped() -> None:
        if gone:
            raise ValueError("Horovod has not been initialized")

    def started(path: Path, world: Any) -> bool:
        path.write_text('[{"ph": "B", "na')
        return True

    monkeypatch.setattr(module.ring, "start_timeline", started)
    monkeypatch.setattr(module.ring, "stop_timeline", stopped)
    train(replace(CONFIG, runs=tmp_path, epochs=2), followers=[Profile(3)])
    run = tmp_path / "run"
    assert steps_in(run / "profile.json") == 3
    (line,) = warnings(capsys.readouterr().err)
    assert "profile.json" in line and "Horovod" in line
    assert not list(run.glob("profile-*")) and not list(run.glob("horovod-*"))
