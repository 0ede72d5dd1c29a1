"""Followers of a run: told in order, seldom enough, with figures that are so."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hvdfilter.training import meter as meter_module
from hvdfilter.training.compare import compare
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Follower, Following
from hvdfilter.training.loop import Trainer
from hvdfilter.training.meter import Meter, Now
from hvdfilter.training.start import train
from hvdfilter.training.step import Step

CONFIG = TrainConfig(
    data="synthetic:60,1,8,8,4", epochs=3, batch_size=8, policy="full", warmup_epochs=1
)


class Seen(Follower):
    """Writes down what it hears."""

    def __init__(self, every: float = math.inf) -> None:
        self.every, self.heard, self.nows = every, [], []  # type: ignore[var-annotated]

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        self.heard.append(("begin", turn))

    def step(self, run: Trainer, step: int, steps: int) -> None:
        self.heard.append(("step", run.epoch, step, steps))

    def tick(self, run: Trainer, now: Now) -> None:
        self.nows.append(now)

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        self.heard.append(("epoch", record["epoch"], record["steps"]))
        self.nows.append(now)

    def end(self) -> None:
        self.heard.append(("end",))


def test_a_run_is_told_in_order(tmp_path: Path) -> None:
    # 60 samples by 8: the last batch is a short one.
    seen = Seen()
    train(TrainConfig(**{**vars(CONFIG), "runs": tmp_path}), followers=[seen])
    expected: list[Any] = [("begin", "")]
    for epoch in range(3):
        expected += [("step", epoch, step, 8) for step in range(1, 9)] + [("epoch", epoch, 8)]
    assert seen.heard == [*expected, ("end",)]


def test_all_are_told_of_the_end_by_an_error(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: int, step: int, steps: int) -> None:
        raise Stop

    seen = Seen()
    with pytest.raises(Stop):
        train(TrainConfig(**{**vars(CONFIG), "runs": tmp_path}), stop, followers=[seen])
    assert seen.heard[-1] == ("end",)


def test_turns_of_a_comparison_have_names(tmp_path: Path) -> None:
    seen = Seen()
    config = {**vars(CONFIG), "policy": "loss", "epochs": 1, "warmup_epochs": 0}
    compare(TrainConfig(**{**config, "runs": tmp_path}), [seen])
    begun = [one[1] for one in seen.heard if one[0] == "begin"]
    assert begun == ["loss", "full", "random"]
    assert [now.turn for now in seen.nows] == ["full", "loss", "random"]  # as they took turns
    lefts = [now.left for now in seen.nows]
    assert lefts[0] > lefts[1] > lefts[2] == 0  # of the whole comparison


def test_the_running_loss_is_the_mean_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By an independent sum of what every step returned, weighted by its samples.
    losses: list[tuple[float, int]] = []
    call = Step.__call__

    def noted(self: Step, ids: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = call(self, ids, x, y)
        losses.append((float(loss), len(ids)))
        return loss

    monkeypatch.setattr(Step, "__call__", noted)
    seen = Seen(every=0.0)
    train(TrainConfig(**{**vars(CONFIG), "runs": tmp_path}), followers=[seen])
    ticks = [now for now in seen.nows if now.left > 0 or now.step]
    assert len(ticks) == 3 * (8 + 1)
    for epoch in range(3):
        for now in ticks[9 * epoch : 9 * epoch + 8]:
            part = losses[8 * epoch : 8 * epoch + now.step]
            mean = sum(loss * n for loss, n in part) / sum(n for _, n in part)
            assert now.loss == pytest.approx(mean, rel=1e-6)
            assert (now.epoch, now.steps, now.kept) == (epoch, 8, 1.0)
            assert math.isnan(now.accuracy) == (epoch == 0)


def test_the_loss_is_fetched_only_when_somebody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock goes a second a step, 8 an epoch: asked after 5, and by the other never.
    at = [0.0]

    def clock() -> float:
        return at[0]

    class Clock(Seen):
        def step(self, run: Trainer, step: int, steps: int) -> None:
            at[0] += 1

    fetched: list[int] = []
    running = Trainer.running_loss

    def counting(self: Trainer) -> float:
        fetched.append(self.step)
        return running(self)

    monkeypatch.setattr(Trainer, "running_loss", counting)
    monkeypatch.setattr("hvdfilter.training.following.time.monotonic", clock)
    seen = Clock(every=5.0)
    train(TrainConfig(**{**vars(CONFIG), "runs": tmp_path}), followers=[seen, Seen()])
    assert fetched == [5, 5, 5]


def test_steps_that_lay_behind_a_resumed_run_took_it_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Resumed at step 6 of 10, which take 2 s each; two epochs in all.
    at = [100.0]
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: at[0])
    run: Any = SimpleNamespace(
        epoch=0,
        batch_size=8,
        config=SimpleNamespace(epochs=2),
        world=SimpleNamespace(size=1),
        filter=SimpleNamespace(trained=80, num_samples=80),
        running_loss=lambda: 0.5,
    )
    meter = Meter()
    meter.begin("", 2, step=6)
    for step in (7, 8):
        at[0] += 2
        meter.step(at[0], "", step)
    assert meter.now(run, "", 8, 10, at[0]).left == pytest.approx(2 * 2 + 10 * 2)
    at[0] += 4
    record = {"epoch": 0, "steps": 10, "train_loss": 0.4, "kept": 80, "seconds": {}}
    assert meter.epoch(run, "", record).left == pytest.approx(10 * 2)


def test_time_left_and_rate_by_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    # An epoch of 10 steps of 2 s and 5 s of the rest; 4 epochs, 2 ranks of 8 samples.
    at = [100.0]
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: at[0])
    run: Any = SimpleNamespace(
        epoch=0,
        batch_size=8,
        config=SimpleNamespace(epochs=4),
        world=SimpleNamespace(size=2),
        filter=SimpleNamespace(trained=160, num_samples=200),
        running_loss=lambda: 0.5,
    )
    meter = Meter()
    meter.begin("", 4)
    for step in range(1, 6):
        at[0] += 2
        meter.step(at[0], "", step)
    now = meter.now(run, "", 5, 10, at[0])
    assert now.rate == 16 / 2 and now.kept == 0.8
    assert now.left == 10 / 0.5 * 3.5  # half of an epoch took 10 s, so far
    at[0] += 10 + 5
    record = {
        "epoch": 0,
        "steps": 10,
        "train_loss": 0.4,
        "test_accuracy": 0.9,
        "kept": 160,
        "seconds": {"training": 20.0},
    }
    now = meter.epoch(run, "", record)
    assert (now.epoch, now.left, now.rate, now.accuracy) == (0, 75.0, 8.0, 0.9)
    run.epoch = 1
    at[0] += 2
    meter.step(at[0], "", 1)
    at[0] += 4
    meter.step(at[0], "", 3)
    now = meter.now(run, "", 3, 10, at[0])
    assert now.rate == 8.0 and now.left == pytest.approx(25 * 2.7) and now.accuracy == 0.9


def test_nobody_costs_nothing(tmp_path: Path) -> None:
    # Without followers there is nothing to call and no clock to look at.
    following = Following()
    assert following._steps == []
