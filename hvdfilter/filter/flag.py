"""StepFlag: what the ranks tell each other at every step, without waiting for each other.

A rank that has met a bad batch, or was asked to stop, says so in a flag that travels while the step
computes. All ranks read it at their next step: they fail, or stop, at one and the same step, and
none is left waiting in an allreduce of gradients.
"""

from __future__ import annotations

from hvdfilter.agreement import Collective

# What a rank posts at every step; the largest counts.
STOP, FAILED = 1, 2


class StepFlag:
    """The flag of a step over `collective`: posted when a step is scored, settled at the next.

    error: the first that this rank has met. stopping: whether any rank was asked to stop; it turns
    true on all of them at one and the same step.
    """

    def __init__(self, collective: Collective) -> None:
        self.error: Exception | None = None
        self.stopping = False
        self._collective = collective
        self._stop = False
        self._posted = False

    def request_stop(self) -> None:
        """Have all ranks stop: this rank's next flag says so."""
        self._stop = True

    def keep(self, error: Exception | None) -> None:
        """Remember an error of this rank until all raise it; the first one counts."""
        self.error = self.error or error

    def post(self, error: Exception | None) -> None:
        """Tell the other ranks, without waiting, whether this step was in order.

        In a world of one there is nobody to wait for: an error is raised at once.
        """
        if self._collective.size == 1:
            self.stopping = self._stop
            if error is not None:
                raise error
            return
        self.keep(error)
        self._collective.post_flag(FAILED if error is not None else STOP * self._stop)
        self._posted = True

    def settle(self) -> None:
        """Complete the flag of the last step; raises, on all ranks, if one of them failed there."""
        if self._posted:
            self._posted = False
            flag = self._collective.poll_flag()
            self.stopping = self.stopping or flag == STOP
            if flag == FAILED:
                self.share_error()

    def share_error(self) -> None:
        """Collective. Raise, on all ranks, what any of them has kept."""
        self._collective.share_error(self.error)
