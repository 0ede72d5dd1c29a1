"""What followers say of runs that train a part of their epochs: the models of an opening."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvdfilter.report.screen import Screen
from hvdfilter.telemetry.mllog import MLLog
from hvdfilter.training import meter as meter_module
from hvdfilter.training.compare import compare
from hvdfilter.training.following import Follower
from hvdfilter.training.loop import Trainer
from hvdfilter.training.meter import Now
from hvdfilter.training.start import train
from tests.policies.static_cases import OPENED as CONFIG
from tests.telemetry.readers import mllog

pytest.importorskip("pyarrow")

SEEDS = ("opening, seed 6", "opening, seed 7")
MODELS = [(turn, epoch, 2) for turn in SEEDS for epoch in range(2)]


class Nows(Follower):
    """Where each epoch ended; the meter's clock goes ten seconds an epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nows: list[Now] = []
        self._at = 0.0
        # The meter's own clock: the other followers and costs go by the real one.
        clock = SimpleNamespace(monotonic=lambda: self._at)
        monkeypatch.setattr(meter_module, "time", clock)

    def step(self, run: Trainer, step: int, steps: int) -> None:
        self._at += 10.0 * (step == 1)

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        self.nows.append(now)


def test_a_run_and_its_opening_are_one_count_of_epochs_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Nows(monkeypatch)
    train(replace(CONFIG, runs=tmp_path), followers=[seen])
    where = [(now.turn, now.epoch, now.epochs) for now in seen.nows]
    assert where == [*MODELS, *(("", epoch, 3) for epoch in range(3))]
    assert [now.left for now in seen.nows] == [60, 50, 40, 30, 20, 10, 0]


def test_a_comparisons_opening_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Nows(monkeypatch)
    compare(replace(CONFIG, runs=tmp_path), [seen, Screen(), MLLog()])
    assert [(now.turn, now.epoch, now.epochs) for now in seen.nows[:4]] == MODELS
    # Four epochs of the opening, and three of each of the runs by turns.
    assert [now.left for now in seen.nows] == [10.0 * left for left in range(12, -1, -1)]
    out = capsys.readouterr().out
    shown = [line.split("  loss")[0] for line in out.splitlines() if line.startswith("epoch")]
    assert shown[:4] == [f"epoch   {epoch + 1}/2  {turn:10}" for turn, epoch, _ in MODELS]
    assert shown[4] == "epoch   1/3  full      "
    events = mllog(out)
    for turn, epochs in [(SEEDS[0], 2), (SEEDS[1], 2), ("el2n", 3), ("random", 3)]:
        mine = [event for event in events if event["namespace"] == turn]
        for key in ("epoch_start", "epoch_stop"):
            numbers = [e["metadata"]["epoch_num"] for e in mine if e["key"] == key]
            assert numbers == [*range(1, epochs + 1)], (turn, key)
        assert (mine[-1]["key"], mine[-1]["metadata"]["status"]) == ("run_stop", "success")


def test_models_that_are_trained_already_are_not_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The job is cut off in its second model's first epoch, and started again.
    class Cut(Exception):
        pass

    class Cutting(Follower):
        def begin(self, run: Trainer, turn: str, epochs: int) -> None:
            if turn == SEEDS[1]:
                raise Cut

    with pytest.raises(Cut):
        train(replace(CONFIG, runs=tmp_path), followers=[Cutting()])
    seen = Nows(monkeypatch)
    train(replace(CONFIG, runs=tmp_path, resume=True), followers=[seen])
    assert [(now.turn, now.epoch, now.epochs) for now in seen.nows[:2]] == MODELS[2:]
    assert [now.left for now in seen.nows] == [40, 30, 20, 10, 0]
