"""Accuracy of every policy at every fraction, at equal epochs and at equal optimiser steps.

    python -m benchmarks.accuracy digits --worker 0/2 &
    python -m benchmarks.accuracy digits --worker 1/2 & wait
    python -m benchmarks.accuracy fashion --data idx:DIR
    python -m benchmarks.accuracy cifar10 --data parquet:DIR --policies kakurenbo infobatch

A policy that hides samples takes fewer steps in the same epochs, so each of its runs is set beside
three others of the same seed (the same first weights, order and augmentation):

- `full` for as many epochs: what not pruning gives, at its price;
- `full` shortened to exactly as many steps, its warm-up and cosine compressed with it (the last
  epoch trains a random part of the set): what simply training less gives;
- `random` that hides as many samples in the same epochs, fresh ones each time, with the learning
  rate scaled where the policy scales it, or weighs up what it keeps: what chance gives.

A policy whose interval is not above that of `random` has not shown that its choice is worth
anything here; the table says "undecided" or "worse". Its column of differences is paired by seed.
The figures are of the last epoch, never of the best. Intervals are 95 %, Student's t over seeds.

A policy with an option `keep` is asked to hide each fraction (keep = 1 - fraction); one without is
run once a seed with its own defaults, and the share that it really hid is listed. Where samples
are repeated, a control trains as many draws. One that needs what this command cannot give it (a
table of scores of a hold-out model) is reported and left out; `--set POLICY.OPTION=VALUE` gives an
option. Options that count epochs are cut down to these short runs (`shortened`).

All runs of one command share a process and one thread. `--worker I/N` takes every N-th group of
runs of one seed and fraction, whose policies mostly share their controls. Every finished run is a
line in `--runs`; a command that was killed goes on from there, and the tables are written from
whatever is there: DATA-accuracy.csv, .md and .png in `--results`.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import accuracy_results as results
from benchmarks.accuracy_plot import plot
from benchmarks.accuracy_run import Recipe, Sets, train, train_random, train_shortened
from benchmarks.machine import describe
from hvdfilter import policies
from hvdfilter.errors import InputError
from hvdfilter.policies.base import option_names
from hvdfilter.training import ring
from hvdfilter.world import World

HERE = Path(__file__).parent
# One full run takes about 2, 6 and 9 CPU seconds on one core, and reaches 98, 80 and 46 %.
RECIPES = {
    "digits": Recipe("digits", "cnn:8", 12, 32, 0.2),
    "fashion": Recipe("idx:fashion-mnist", "cnn:8", 8, 32, 0.2, 3000, 2000),
    "cifar10": Recipe("parquet:cifar10", "resnet9:8", 6, 32, 0.2, 2000, 1000),
}


@dataclass(frozen=True)
class Job:
    """One policy with its options, at one fraction (None: as its defaults say) and seed."""

    policy: str
    fraction: float | None
    options: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def key(self) -> str:
        """Its key among the finished runs."""
        return results.policy_key(self.policy, dict(self.options), self.seed)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    recipe = _recipe(options)
    worker, workers = options.worker
    world = ring.start()
    torch.set_num_threads(1)  # after it: it takes all that a rank has
    given = _given(options.set)
    groups = plan(options.policies, options.fractions, options.seeds, given, recipe.epochs)
    mine = [group for number, group in enumerate(groups) if number % workers == worker]
    with results.Store(options.runs / options.name, asdict(recipe), worker) as store:
        if not options.table:
            failed = work(mine, recipe, recipe.open(), world, store)
            for policy, reason in failed.items():
                print(f"left out: {policy}: {reason}", file=sys.stderr)
        write(store, options.results, options.name)


def plan(
    names: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    given: dict[str, dict[str, Any]],
    epochs: int,
) -> list[list[Job]]:
    """Groups of jobs of one seed and fraction; `full` and `random` are always among them."""
    names = ["full", "random", *(name for name in names if name not in ("full", "random"))]
    groups = []
    for seed in range(seeds):
        for fraction in (None, *fractions):
            jobs = []
            for name in names:
                if ("keep" in option_names(policies.get(name))) == (fraction is None):
                    continue
                known = option_names(policies.get(name))
                options = {key: value for key, value in shortened(epochs).items() if key in known}
                options |= given.get(name, {})
                if fraction is not None:
                    options["keep"] = round(1 - fraction, 6)
                jobs.append(Job(name, fraction, tuple(sorted(options.items())), seed))
            groups.append(jobs)
    return groups


def shortened(epochs: int) -> dict[str, int]:
    """Options that count epochs of a published run of 90 to 200, for a run of `epochs`.

    A quarter of the run for the epochs from which a static choice is made: less says nothing of a
    sample, more leaves nothing to save.
    """
    return {"warmup": max(1, epochs * 5 // 90), "opening": max(2, epochs // 4), "window": 2}


def work(
    groups: Sequence[Sequence[Job]], recipe: Recipe, sets: Sets, world: World, store: results.Store
) -> dict[str, str]:
    """Run what has not been run; the policies that refused to, and why."""
    failed: dict[str, str] = {}
    jobs = [job for group in groups for job in group]
    took: list[float] = []
    if jobs:
        seconds, runs = estimate(jobs, recipe, sets, world)
        print(
            f"{len(jobs)} runs of policies, at most {runs} with controls: about "
            f"{seconds / 60:.0f} min at this moment's pace, less what is there already"
        )
    for number, job in enumerate(jobs):
        if job.policy in failed:
            continue
        started = time.perf_counter()
        try:
            ran = run_job(job, recipe, sets, world, store)
        except InputError as refused:
            failed[job.policy] = str(refused)
            continue
        if not ran:
            continue
        took.append(time.perf_counter() - started)
        left = (len(jobs) - number - 1) * statistics.fmean(took)
        share = "" if job.fraction is None else f" {job.fraction:.0%}"
        print(
            f"{number + 1} of {len(jobs)}: {job.policy}{share} seed {job.seed}: "
            f"{took[-1]:.1f} s with its controls; about {left / 60:.1f} min left",
            flush=True,
        )
    return failed


def estimate(jobs: Sequence[Job], recipe: Recipe, sets: Sets, world: World) -> tuple[float, int]:
    """(wall seconds, runs) of the jobs and their controls, by timing one epoch of `full`.

    Taken from above: policies that train as many samples in every epoch share their controls, and
    of one without `keep` nobody knows beforehand how many it will hide.
    """
    one = train(replace(recipe, epochs=1), sets, world, policies.make("full"), seed=0)
    epoch = one["wall"]["total"]
    # Of each fraction and seed two controls, and two more where a policy chooses how many to hide.
    shared = {(job.seed, job.fraction) for job in jobs}
    runs, share = len(jobs), sum(1 - (job.fraction or 0.0) for job in jobs)
    own = [job for job in jobs if job.fraction is None and job.policy != "full"]
    runs += 2 * len(shared) + 2 * len(own)
    share += sum(2 * (1 - (fraction or 0.0)) for _, fraction in shared) + 2 * len(own)
    return epoch * recipe.epochs * share, runs


def run_job(job: Job, recipe: Recipe, sets: Sets, world: World, store: results.Store) -> bool:
    """Run the policy and its controls, each unless it is there already; whether any was run."""
    found = results.index(store.rows())
    policy = policies.make(job.policy, **dict(job.options))
    # Weights that make up for what is hidden are a larger step too.
    scale_lr, seed = policy.scale_lr or policy.makes_up, job.seed
    row = found.get(job.key)
    ran = row is None
    if row is None:
        row = {
            "key": job.key,
            "policy": job.policy,
            "fraction": job.fraction,
            "options": dict(job.options),
            "seed": seed,
            "scale_lr": scale_lr,
            **train(recipe, sets, world, policy, seed),
        }
        store.append(row)
        found = results.index([*found.values(), row])
    steps, drawn = row["steps"], tuple(row["drawn"])
    key = results.full_key(steps, seed)
    if key not in found:
        control = {"key": key, "policy": results.FULL, "fraction": None, "seed": seed}
        store.append(control | train_shortened(recipe, sets, world, steps, seed))
        ran = True
    key = results.random_key(drawn, scale_lr, seed)
    if key not in found and job.policy != "full":
        control = {"key": key, "policy": results.RANDOM, "fraction": None, "seed": seed}
        store.append(control | train_random(recipe, sets, world, drawn, scale_lr, seed))
        ran = True
    return ran


def write(store: results.Store, folder: Path, name: str) -> None:
    """Table, CSV and plot of all runs that are there."""
    rows = store.rows()
    table = results.lines(rows)
    if not table:
        return
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: "all" if value is None else value for key, value in store.recipe.items()}
    recipe = ", ".join(f"{key} {value}" for key, value in values.items() if key != "data")
    heading = f"{name}: {recipe}; {describe(torch.device('cpu'))}"
    text = results.markdown(table)
    results.write_csv(folder / f"{name}-accuracy.csv", table, heading)
    (folder / f"{name}-accuracy.md").write_text(f"{heading}\n\n{text}")
    plot(folder / f"{name}-accuracy.png", table, f"{name}: {recipe}; mean and 95 % interval")
    print(text)
    seconds = sum(row["cpu"]["total"] for row in rows)
    print(f"{len(rows)} runs, {seconds / 60:.1f} CPU minutes in all; tables in {folder}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(sys.modules[__name__]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=RECIPES, help="the recipe: data, network and schedule")
    parser.add_argument("--policies", nargs="+", default=policies.available())
    parser.add_argument("--fractions", nargs="+", type=_fraction, default=[0.3, 0.5])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--set", nargs="+", default=[], metavar="POLICY.OPTION=VALUE")
    parser.add_argument("--worker", type=results.worker, default=(0, 1), metavar="I/N")
    parser.add_argument("--runs", type=Path, default=Path("runs", "accuracy"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--table", action="store_true", help="run nothing, write the tables")
    for option in fields(Recipe):
        kind = {"lr": float, "data": str, "model": str}.get(option.name, int)
        flag = f"--{option.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, help="instead of the recipe's")
    return parser.parse_args(arguments)


def _recipe(options: argparse.Namespace) -> Recipe:
    changes = {option.name: getattr(options, option.name) for option in fields(Recipe)}
    changes = {name: value for name, value in changes.items() if value is not None}
    return replace(RECIPES[options.name], **changes)


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no fraction to hide, such as 0.3")
    return value


def _given(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    given: dict[str, dict[str, Any]] = {}
    for name, option, value in _split(words):
        given.setdefault(name, {})[option] = yaml.safe_load(value)
    return given


def _split(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for word in words:
        name, _, rest = word.partition(".")
        option, sign, value = rest.partition("=")
        if not (name and option and sign):
            raise InputError(f"--set {word}: write POLICY.OPTION=VALUE")
        yield name, option, value


if __name__ == "__main__":
    try:
        main()
    except InputError as refused:
        sys.exit(f"accuracy: {refused}")
