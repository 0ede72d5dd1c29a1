"""A comparison in sentences: what was hidden, what that saved, and what it did to accuracy."""

from __future__ import annotations

from hvdfilter.report.compare import Summary


def verdict(run: Summary, full: Summary, random: Summary | None = None) -> list[str]:
    """Three sentences about `run`, beside the `full` run and a random one of as many steps."""
    spared = [f"{full.steps - run.steps:,d} of {full.steps:,d} optimiser steps"]
    if full.gradient_bytes:
        saved = full.gradient_bytes - run.gradient_bytes
        spared.append(f"{saved / 1e6:,.1f} of {full.gradient_bytes / 1e6:,.1f} MB of gradients")
    took = (
        f"It took {run.total:.1f} s instead of {full.total:.1f}, {_less(run.total, full.total)} "
        f"time, and {run.cpu:.1f} CPU seconds instead of {full.cpu:.1f}, {_less(run.cpu, full.cpu)}"
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
    return [
        f"`{run.policy}` hid {run.hidden:.1%} of the samples, which saved {' and '.join(spared)}.",
        f"{took}.",
        f"{accuracy}.",
    ]


def _less(mine: float, theirs: float) -> str:
    return f"{abs(1 - mine / theirs):.1%} {'less' if mine <= theirs else 'more'}"


def _points(difference: float) -> str:
    """How far above or below, in points of a percentage."""
    side = "below" if difference < 0 else "above"
    return "level with" if difference == 0 else f"{abs(difference) * 100:.2f} points {side}"
