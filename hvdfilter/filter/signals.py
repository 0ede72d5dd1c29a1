"""Signals: what a training loop asks of all ranks, or hears from them, at one and the same step."""

from __future__ import annotations

from hvdfilter.filter.flag import StepFlag


class Signals:
    """The side of a Filter that reaches all ranks with the flag of a step."""

    _flag: StepFlag

    @property
    def stopping(self) -> bool:
        """Whether any rank was asked to stop: true on all of them from the same step on."""
        return self._flag.stopping

    @property
    def saving(self) -> bool:
        """Whether any rank was asked to save: true on all from one and the same step on, until
        `state_dict` is called."""
        return self._flag.saving

    def request_stop(self) -> None:
        """Ask all ranks to stop; `stopping` turns true on all of them at one and the same step."""
        self._flag.request_stop()

    def request_save(self) -> None:
        """Ask all ranks to save; `saving` turns true on all of them at one and the same step."""
        self._flag.request_save()

    def fail(self, error: Exception) -> None:
        """Have all ranks raise an error of this rank: at once in a world of one, else next step."""
        self._flag.refuse(error)
