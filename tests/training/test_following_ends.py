"""The end of a job: every follower is told, and none of them hides what ended it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Follower
from hvdfilter.training.run_folder import read_metrics
from hvdfilter.training.start import train
from hvdfilter.world import World

CONFIG = TrainConfig(data="synthetic:64,1,8,8,4", epochs=2, batch_size=32, policy="full", name="a")


class Ends(Follower):
    """Writes down that it was told, and fails at it where it is given an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.told = error, 0

    def end(self) -> None:
        self.told += 1
        if self.error is not None:
            raise self.error


class Stop(Exception):
    pass


def stop(epoch: int, step: int, steps: int) -> None:
    raise Stop


def lines(said: str, kind: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(f"hvdfilter: {kind}")]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_runs_own_error_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], failing: int
) -> None:
    followers = [Ends() for _ in range(3)]
    followers[failing].error = RuntimeError("the disk\nis full.")
    with pytest.raises(Stop):
        train(replace(CONFIG, runs=tmp_path), stop, followers=followers)
    assert [follower.told for follower in followers] == [1, 1, 1]
    (line,) = lines(capsys.readouterr().err, "warning: ")
    assert "Ends" in line and "the disk is full" in line


def test_a_run_that_was_well_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    followers: list[Any] = [Ends(OSError(28, "No space left")), Ends(ValueError()), Ends()]
    result = train(replace(CONFIG, runs=tmp_path), followers=followers)
    assert [follower.told for follower in followers] == [1, 1, 1]
    assert len(read_metrics(result.folder)) == 2
    first, second = lines(capsys.readouterr().err, "warning: ")
    assert "No space left" in first and "ValueError" in second


def test_whoever_is_refused_the_others_are_ended(tmp_path: Path) -> None:
    class Refuses(Ends):
        def prepare(self, world: World) -> None:
            raise Stop

    followers = [Ends(RuntimeError("x")), Refuses(), Ends()]
    with pytest.raises(Stop):
        train(replace(CONFIG, runs=tmp_path), followers=followers)
    assert [follower.told for follower in followers] == [1, 1, 1]


def test_an_interruption_while_it_ends_is_no_failure_of_a_follower(tmp_path: Path) -> None:
    followers = [Ends(KeyboardInterrupt()), Ends()]
    with pytest.raises(KeyboardInterrupt):
        train(replace(CONFIG, runs=tmp_path), followers=followers)
    assert [follower.told for follower in followers] == [1, 1]
