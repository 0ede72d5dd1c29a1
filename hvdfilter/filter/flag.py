"""StepFlag: what the ranks tell each other at every step, without waiting for each other.

A rank that has met a bad batch, or was asked to stop, says so in a flag that travels while the step
computes. All ranks read it at their next step: they fail, or stop, at one and the same step, and
none is left waiting in an allreduce of gradients. Whatever else a filter does on all ranks opens
on the same channel, so ranks that have come apart find out instead of waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hvdfilter.agreement import Call, Collective
from hvdfilter.agreement.meeting import Meeting

# What a rank posts at every step; the largest counts.
SAVE, STOP, FAILED = 1, 2, 3


class StepFlag:
    """The flags of one filter's steps: posted when a step is scored, settled at the next.

    error: the first that this rank has met. stopping: whether any rank was asked to stop; it turns
    true on all of them at one and the same step, as does saving, until it is done, where one was
    asked to save. told: whether an error was raised.
    """

    def __init__(self, collective: Collective) -> None:
        self.error: Exception | None = None
        self.stopping = self.saving = self.told = False
        self._collective = collective
        self._filter = collective.number_filter()
        self._stop = self._save = False
        self._posted: Meeting | None = None

    def request_stop(self) -> None:
        """Have all ranks stop: this rank's next flag says so."""
        self._stop = True

    def request_save(self) -> None:
        """Have all ranks save what they have come to, at one step: the next flag says so."""
        self._save = True

    def saved(self) -> None:
        """What any rank was asked to save is being saved, with what was asked for meanwhile."""
        self.saving = self._save = False

    def post(self, error: Exception | None) -> None:
        """Tell the other ranks, without waiting, whether this step was in order.

        In a world of one there is nobody to wait for: an error is raised at once.
        """
        if self._collective.size == 1:
            self.stopping, self.saving = self._stop, self.saving or self._save
            self._save = False
        if error is not None:
            self.refuse(error)
        if self._collective.size > 1:
            flag = FAILED if self.error is not None else max(STOP * self._stop, SAVE * self._save)
            self._save = False
            self._posted = self._collective.call(Call.STEP, flag=flag, filter=self._filter)

    def refuse(self, error: Exception) -> None:
        """Raise this rank's error: at once in a world of one, else on all ranks when they settle.

        The first one counts.
        """
        if self._collective.size == 1:
            self.told = True
            raise error
        self.error = self.error or error

    def settle(self) -> None:
        """Complete the flag of the last step; raises, on all ranks, if one of them failed there."""
        if self._posted is not None:
            posted, self._posted = self._posted, None
            try:  # in every step, where `telling` would cost a microsecond
                flag = self._collective.wait_for(posted)
                self.stopping |= flag == STOP
                self.saving |= flag == SAVE
                if flag == FAILED:
                    self._collective.share_error(self.error)
            except Exception:
                self._tell()
                raise

    def meet(self, call: Call, argument: int = 0, error: Exception | None = None) -> None:
        """Collective. All ranks are in this call, and none has anything to report.

        error: this rank's own, which all ranks then raise, as they do one that was kept. Raises
        what names both calls where the ranks are in different ones.
        """
        self.settle()
        with self.telling():
            self._collective.meet(call, argument, error=self.error or error, filter=self._filter)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What the block raises has been told: not raised again, nor told as the script exits."""
        try:
            yield
        except Exception:
            self._tell()
            raise

    def _tell(self) -> None:
        self.error, self.told = None, True
