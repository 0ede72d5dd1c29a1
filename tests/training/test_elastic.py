"""Which end of a life begins another, in Horovod's own loop; tests/distributed/ has real ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvdfilter import world
from hvdfilter.agreement.meeting import RankGone
from hvdfilter.errors import InputError, WorldError
from hvdfilter.training import elastic
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.preemption import Preempted, Watch
from hvdfilter.training.watchdog import Watchdog

pytest.importorskip("horovod.torch")


class Run:
    """A run whose lives end as `ends` says: by an error, or well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: BaseException | None) -> None:
        self.ends, self.resumed, self.left = list(ends), [], 0
        self.watch = Watch()
        monkeypatch.setattr(elastic, "leave", self._leave)

    def _leave(self) -> None:
        self.left += 1

    def live(self, config: TrainConfig, here: world.World) -> str:
        self.resumed.append(config.resume)
        assert not self.watch.changed  # what was heard before the ranks met is no news
        error = self.ends.pop(0)
        if isinstance(error, Preempted):
            self.watch.changed = True
        if error is not None:
            raise error
        return "trained"

    def start(self) -> str:
        config = TrainConfig(elastic=True, name="run")
        return elastic.run(self.live, config, world.init, self.watch, Watchdog(0))


def lost() -> WorldError:
    """What a step raises when another rank is gone: the errors that lead to it, outermost first."""
    gone = RankGone("gone")
    gone.__cause__ = world.horovod_elastic().HorovodInternalError("connection reset by peer")
    error = WorldError("another rank has left")
    error.__cause__ = gone
    return error


def test_other_ranks_and_lost_ranks_begin_another_life(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, Preempted(Path()), lost(), None)
    assert run.start() == "trained"
    assert run.resumed == [False, True, True] and run.left == 2


@pytest.mark.parametrize("error", [InputError("a bad sample"), WorldError("ranks have come apart")])
def test_an_error_of_the_run_s_own_ends_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = Run(monkeypatch, error)
    with pytest.raises(type(error), match=str(error)):
        run.start()
    assert run.left == 0


def test_a_scheduler_s_warning_counts_more_than_other_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(monkeypatch, Preempted(Path()))
    run.watch.signalled = True
    with pytest.raises(Preempted):
        run.start()
    assert run.left == 0


def test_a_run_starts_anew_only_under_its_name() -> None:
    with pytest.raises(InputError, match="elastic=true needs the name"):
        TrainConfig(elastic=True).check()
