"""What `--dry-run` shows: the plan of each run in lines, or all of them in one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hvdfilter.report import document
from hvdfilter.training.dry_run import Planned


def show(plans: Sequence[Planned], as_json: bool = False) -> None:
    """Print them on rank 0."""
    found = [asdict(plan) | {"steps_left": plan.steps_left} for plan in plans]
    text = "\n\n".join("\n".join(lines(plan)) for plan in plans)
    document.show({"runs": found}, as_json, f"{text}\n\nnothing was trained or written")


def lines(plan: Planned) -> list[str]:
    """A plan for a person."""
    shape = "x".join(map(str, plan.shape))
    where = f"{plan.folder}"
    if plan.exists:
        where += f", from epoch {plan.epoch + 1}, step {plan.step + 1}"
    elif plan.resume:
        where += ", anew, for there is no such run to resume"
    return [
        f"data     {plan.data}: {plan.samples:,} training and {plan.test_samples:,} test samples, "
        f"{shape}, {plan.classes:,} classes",
        f"model    {plan.model}: {plan.weights:,} weights, on {plan.device}",
        f"policy   {plan.policy}",
        f"batch    {plan.batch:,} on {plan.ranks} rank{'s' * (plan.ranks > 1)}",
        f"steps    {plan.steps:,} an epoch if nothing is hidden, {plan.steps_left:,} until the end "
        f"of {plan.epochs:,} epochs",
        f"folder   {where}",
    ]
