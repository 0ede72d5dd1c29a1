"""Elastic training: ranks join and leave, and the run goes on from its checkpoint.

Horovod's own loop is around it: it learns from the launcher that hosts come and go, and starts
Horovod anew over the ranks that there are. Between two such starts lies a life of the run, which
ends as a preempted one does, all ranks at one step with a checkpoint on disk, and the next is a run
resumed on other ranks. Where a rank was killed, the checkpoint is the last that was written.
Nothing of the run is kept in memory or sent to a rank that joins; none of our messages is pickled.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from hvdfilter.training.checkpoints import let_finish
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.preemption import Preempted, Watch
from hvdfilter.training.watchdog import Watchdog
from hvdfilter.world import World, horovod_elastic, leave

Outcome = TypeVar("Outcome")


def run(
    live: Callable[[TrainConfig, World], Outcome],
    config: TrainConfig,
    start: Callable[[], World],
    watch: Watch,
    watchdog: Watchdog,
) -> Outcome:
    """What the last life of the run returns.

    live: trains until the end, raises `Preempted` where `watch` has all ranks stop. start: meets
    the ranks that there are. Raises `Preempted` when a scheduler has warned a rank, and what `live`
    does that has nothing to do with a rank that is gone.
    """
    horovod = horovod_elastic()
    lives = 0

    def life(hosts: _Hosts) -> Outcome:
        nonlocal lives
        lives += 1
        try:
            world = start()
            # A rank that joins knows nothing of the lives before.
            going_on = _any(lives > 1 or config.resume, world)
            if lives > 1 and world.rank == 0:
                print(f"hvdfilter: the ranks are {world.size} now", file=sys.stderr, flush=True)
            return live(replace(config, resume=going_on), world)
        except Preempted:
            if _any(watch.signalled, world):
                raise
            raise horovod.HostsUpdatedInterrupt(skip_sync=True) from None
        except Exception as error:
            if _of(horovod.HorovodInternalError, error):
                raise horovod.HorovodInternalError(str(error)) from error
            raise

    def renew() -> None:
        """Once nothing is left of the life before: its model would take memory of the next."""
        watchdog.leave()
        let_finish()
        gc.collect()
        watch.changed = False  # before the ranks meet: what is heard from then on is news
        leave()

    outcome: Outcome = horovod.run_fn(life, renew)(_Hosts(watch))
    return outcome


class _Hosts:
    """What Horovod's loop wants of a state: here only that it hears of hosts that come and go."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_hosts_updated(self, timestamp: int, result: int) -> None:
        """Called on rank 0 alone, in a thread of Horovod's; its flag reaches the others."""
        self._watch.changed = True

    def sync(self) -> None:
        """The checkpoint on disk is what all ranks go on from."""

    restore = on_reset = sync


def _any(here: bool, world: World) -> bool:
    return bool(world.collective.allreduce(np.array([here], np.int64), "max")[0])


def _of(kind: type[BaseException], error: BaseException | None) -> bool:
    """Whether an error is of this kind, or came of one."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None
