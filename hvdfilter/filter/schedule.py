"""Schedule: a learning-rate scheduler that was built for epochs in full, and ends where it should.

A scheduler counts steps, and an epoch that hides samples has fewer of them: left alone, it never
reaches its last one. Here each step of an epoch stands for as many of the scheduler's own as an
epoch in full has more. It sets no rate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any, Protocol

from hvdfilter.errors import InputError


class Scheduler(Protocol):
    """What is asked of a scheduler; all of `torch.optim.lr_scheduler` that go by steps have it."""

    def step(self) -> None:
        """Set the next rate."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""


Steps = Sized | Callable[[], int]


class Schedule:
    """`scheduler`, stepped once a training step, through epochs of any length.

    steps: the loader, or a function that returns how often `step` will be called in the epoch that
    has begun. Asked now, it must give the steps of an epoch in full. Every attribute that is not
    here is the scheduler's own (`get_last_lr`, ...).

    After the last step of epoch e the scheduler has made (e + 1) times the steps of a full epoch,
    neither more nor less; an epoch that ended early is made up for in the next.
    """

    def __init__(self, scheduler: Scheduler, steps: Steps) -> None:
        if not callable(steps) and not isinstance(steps, Sized):
            raise InputError(
                f"schedule needs the loader, or a function that counts its steps, not {steps!r}"
            )
        self.scheduler = scheduler
        self._steps = steps
        self._full = self._count()
        if self._full < 1:
            raise InputError("schedule was given an epoch without steps: give it the loader")
        self.taken = 0
        self._from, self._to, self._made, self._expected = 0, self._full, 0, self._full

    def begin_epoch(self, epoch: int) -> None:
        """Plan the steps of `epoch`, or what a resumed run has left of it."""
        self._from, self._to = self.taken, (epoch + 1) * self._full
        self._made, self._expected = 0, max(1, self._count())

    def step(self) -> None:
        """To be called after every `optimizer.step()`, in place of the scheduler's own."""
        self._made = min(self._made + 1, self._expected)
        goal = self._from + self._made * (self._to - self._from) // self._expected
        while self.taken < goal:
            self.scheduler.step()
            self.taken += 1

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, and how many of its steps were taken."""
        return {"taken": self.taken, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, before or after the filter does."""
        self.scheduler.load_state_dict(state["scheduler"])
        self._from = self.taken = int(state["taken"])

    def _count(self) -> int:
        return int(self._steps()) if callable(self._steps) else len(self._steps)

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # not there yet: this object is being copied
            raise AttributeError(name)
        return getattr(self.scheduler, name)
