"""Schedules of the share that a policy hides, by epoch: for any policy with a `keep` option.

    constant          1 - keep in every epoch
    cosine            falls from 1 - keep in the first epoch to 0 in the last, along half a cosine
    accuracy          (1 - keep) times the training accuracy, as last observed of every sample
    steps:S@T,S@T     the share S hidden from the fraction T of the run on; nothing before the first

Cosine falls and does not rise: KAKURENBO lowers its cap in steps (Nguyen et al. 2023,
arXiv:2310.10102) and InfoBatch ends on all data (Qin et al. 2023, arXiv:2303.04947), because late
epochs, of a small rate, are those that a biased choice hurts. A policy with a schedule of its own,
such as KAKURENBO's, applies it to the share it is given here.
"""

from __future__ import annotations

import math

from hvdfilter.errors import InputError

KINDS = ("constant", "cosine", "accuracy")
Steps = tuple[tuple[float, float], ...]  # (start, share), starts ascending


def parse_steps(policy: str, text: str) -> Steps | None:
    """The steps of `steps:...`, None for the schedules that are a word.

    Raises `InputError`, naming the policy, for any other text.
    """
    if text in KINDS:
        return None
    kind, _, listed = text.partition(":")
    if kind != "steps":
        raise InputError(
            f"policy {policy!r}: fraction={text!r} is no schedule: choose from "
            f"{', '.join(KINDS)} and steps:SHARE@START,..."
        )
    steps = []
    for step in listed.split(","):
        share, _, start = step.partition("@")
        try:
            steps.append((float(start), float(share)))
        except ValueError:
            steps.append((math.nan, math.nan))
        if not (0 <= steps[-1][0] < 1 and 0 <= steps[-1][1] < 1):
            raise InputError(
                f"policy {policy!r}: fraction={text!r}: write each step as SHARE@START, the share "
                "hidden and the fraction of the run it begins at, both in [0, 1), "
                f"e.g. steps:0.3@0,0.2@0.33; not {step!r}"
            )
    starts = [start for start, _ in steps]
    if sorted(set(starts)) != starts:
        raise InputError(
            f"policy {policy!r}: fraction={text!r}: each step must begin later than the one before"
        )
    return tuple(steps)


def hidden_share(
    policy: str, text: str, most: float, epoch: int, epochs: int, accuracy: float
) -> float:
    """The share hidden in `epoch` of `epochs`; `most` is 1 - keep, `accuracy` of the training."""
    steps = parse_steps(policy, text)
    if steps is not None:
        begun = [share for start, share in steps if epoch >= round(start * epochs, 6)]
        return begun[-1] if begun else 0.0
    if text == "cosine":
        # Rounded, so that nodes of different C libraries make the same of it.
        return round(most * (1 + math.cos(math.pi * epoch / max(1, epochs - 1))) / 2, 9)
    return most * accuracy if text == "accuracy" else most
