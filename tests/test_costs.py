"""Wall time and CPU time of a part are two things."""

from __future__ import annotations

import time

from hvdfilter.costs import Costs


def test_sleep_takes_time_but_no_cpu() -> None:
    costs = Costs()
    with costs.whole():
        time.sleep(0.2)
    assert costs.seconds["total"] >= 0.2 and costs.seconds["cpu"] < 0.1
    with costs.whole():
        # By this thread's own clock: torch's idle threads count in the process's.
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
    assert costs.seconds["cpu"] >= 0.1  # sums up
    seconds, _ = costs.take()
    assert seconds["total"] >= 0.3 and not costs.seconds
