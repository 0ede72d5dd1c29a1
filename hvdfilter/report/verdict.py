"""A comparison in sentences: what was hidden, what that saved, and what it did to accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hvdfilter.report.compare import Summary


def verdict(run: Summary, full: Summary, random: Summary | None = None) -> list[str]:
    """Three sentences about `run`, beside the `full` run and a random one of as many steps."""
    spared = [f"{full.steps - run.steps:,d} of {full.steps:,d} optimiser steps"]
    if full.gradient_bytes:
        saved = full.gradient_bytes - run.gradient_bytes
        spared.append(f"{saved / 1e6:,.1f} of {full.gradient_bytes / 1e6:,.1f} MB of gradients")
    took = (
        f"It took {run.total:.1f} s instead of {full.total:.1f}, {_less(run.total, full.total)} "
        "time"
    )
    if math.isfinite(run.cpu) and math.isfinite(full.cpu):  # runs of older versions have none
        took += (
            f", and {run.cpu:.1f} CPU seconds instead of {full.cpu:.1f}, {_less(run.cpu, full.cpu)}"
        )
    if run.hidden > 0:
        ratio = (1 - run.total / full.total) / run.hidden
        took += f": {ratio:.2f} of the share that was hidden came back as time"
    accuracy = (
        f"Test accuracy is {run.accuracy:.2%}, {_points(run.accuracy - full.accuracy)} `full`"
    )
    if random is not None:
        accuracy += (
            f" and {_points(run.accuracy - random.accuracy)} hiding as many at random "
            f"({random.steps:,d} steps, {random.total:.1f} s)"
        )
    if not all(math.isfinite(one.accuracy) for one in (run, full, random or full)):
        accuracy = "Test accuracy was not measured"  # a script may not have
    return [
        f"`{run.policy}` hid {run.hidden:.1%} of the samples, which saved {' and '.join(spared)}.",
        f"{took}.",
        f"{accuracy}.",
    ]


def certainty(mine: Mapping[int, float], theirs: Mapping[int, float], of: str) -> str:
    """A sentence on how sure a difference in accuracy is, by the seeds that two policies share.

    mine, theirs: test accuracy by seed; of: what the others are called. Student's 95 % interval of
    the mean of the paired differences; empty for fewer than two seeds.
    """
    pairs = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    count = len(pairs)
    if count < 2 or not all(map(math.isfinite, pairs)):
        return ""
    from scipy.special import stdtrit

    mean = sum(pairs) / count
    deviation = math.sqrt(sum((pair - mean) ** 2 for pair in pairs) / (count - 1))
    half = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    low, high = 100 * (mean - half), 100 * (mean + half)
    sure = "which seeds alone could explain" if low <= 0 <= high else "more than seeds explain"
    return (
        f"Over {count} seeds, each paired with itself, accuracy differs from `{of}` by "
        f"{100 * mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}), {sure}."
    )


def _less(mine: float, theirs: float) -> str:
    return f"{abs(1 - mine / theirs):.1%} {'less' if mine <= theirs else 'more'}"


def _points(difference: float) -> str:
    """How far above or below, in points of a percentage."""
    side = "below" if difference < 0 else "above"
    return "level with" if difference == 0 else f"{abs(difference) * 100:.2f} points {side}"
