"""Accuracy and sharpness against the global batch: all samples, filtered ones, random ones.

    python -m benchmarks.large_batch digits --worker 0/2 &
    python -m benchmarks.large_batch digits --worker 1/2 & wait
    python -m benchmarks.large_batch digits --landscape 16
    python -m benchmarks.large_batch fashion --data idx:DIR

Every run trains its opening epochs on all samples with batches of 32. Then the batch grows to 1, 2,
4, 8 or 16 times that, the rate with it, warmed up again, and from there on it trains

- `full`: all samples;
- `feature-filter`: the share that the policy chose once, as the opening ended;
- `random`: a fresh random choice of as many in every epoch, so as many steps.

The claim (Gahlot, Yin, Shankar 2020) is that the filtered run keeps its accuracy at a large batch
and ends in a smoother place. Sharpness is the largest eigenvalue of the Hessian of the mean loss
over all training samples, hidden ones too, by `hvdfilter.sharpness`: of one function for all three.

Figures are of the last epoch. Intervals are 95 %, Student's t over seeds, of eigenvalues in their
logarithms; differences are paired by seed, which also fixes first weights and order. Every finished
run is a line in `--runs`; a command that was killed goes on from there.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks import large_batch_results as tables
from benchmarks.accuracy_results import Row, Store, worker
from benchmarks.accuracy_run import Counted, Done, Recipe, Sets, run
from benchmarks.machine import describe
from hvdfilter import policies
from hvdfilter.errors import InputError
from hvdfilter.policies.uniform import budget
from hvdfilter.sharpness import Landscape, MeanLoss, landscape, largest_eigenvalue
from hvdfilter.training import ring
from hvdfilter.training.config import RATES
from hvdfilter.world import World

HERE = Path(__file__).parent
# Samples whose Hessian is multiplied with at once: small images need many to fill a kernel.
BATCH = 256


@dataclass(frozen=True)
class Growing(Recipe):
    """What all runs share. keep: of the samples, after `opening` epochs on all of them."""

    keep: float = 0.7
    opening: int = 4
    optimizer: str = "sgd"


RECIPES = {
    "digits": Growing("digits", "resnet9:4", 16, 32, 0.2),
    # Without normalisation, so that a large rate can destroy what the opening has learnt.
    "digits-cnn": Growing("digits", "cnn:8", 16, 32, 0.2),
    "fashion": Growing("idx:fashion-mnist", "resnet9:4", 12, 32, 0.2, 1500, 2000),
}


@dataclass(frozen=True)
class Job:
    """One run: with the batch so many times as large, on these samples."""

    arm: str
    times: int
    seed: int

    @property
    def key(self) -> str:
        """Its key among the finished runs."""
        return f"{self.arm} x{self.times} seed {self.seed}"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    changes = {
        name: getattr(options, name)
        for name in ("data", "model", "epochs", "train", "test", "opening", "optimizer", "lr")
        if getattr(options, name) is not None
    }
    if options.optimizer and options.lr is None:
        changes["lr"] = RATES[options.optimizer]
    recipe = replace(RECIPES[options.name], **changes)
    number, workers = options.worker
    world = ring.start()
    torch.set_num_threads(1)  # after it: it takes all that a rank has
    name = f"large-batch-{options.name}"
    if recipe.optimizer != "sgd":
        name += f"-{recipe.optimizer}"
    if options.landscape:
        draw(options.landscape, recipe, world, options.results / f"{name}-landscape.png")
        return
    with Store(options.runs / name, asdict(recipe), number) as store:
        jobs = plan(options.times, options.seeds)
        if not options.table:
            work(jobs[number::workers], recipe, recipe.open(), world, store)
        write(store, recipe, options.results, name)


def plan(times: Sequence[int], seeds: int) -> list[Job]:
    """Every batch and choice of samples for a seed before the next one."""
    return [
        Job(arm, factor, seed) for seed in range(seeds) for factor in times for arm in tables.ARMS
    ]


def work(jobs: Sequence[Job], recipe: Growing, sets: Sets, world: World, store: Store) -> None:
    """Run what has not been run."""
    found = {row["key"] for row in store.rows()}
    for number, job in enumerate(jobs):
        if job.key in found:
            continue
        started = time.perf_counter()
        row = measure(job, recipe, sets, world)
        store.append(row)
        took = time.perf_counter() - started
        print(
            f"{number + 1} of {len(jobs)}: {job.key}: accuracy {row['accuracy']:.4f}, eigenvalue "
            f"{row['eigenvalue']:.4g}, {took:.1f} s",
            flush=True,
        )


def measure(job: Job, recipe: Growing, sets: Sets, world: World) -> Row:
    """Train one run and measure where it ended."""
    done = train(job, recipe, sets, world)
    found = largest_eigenvalue(MeanLoss(done.network, batches(sets), world=world))
    last = done.records[-1]
    return {
        "key": job.key,
        **asdict(job),
        "accuracy": last["test_accuracy"],
        "steps": sum(record["steps"] for record in done.records),
        "kept": [record["kept"] for record in done.records],
        "eigenvalue": found.value,
        "residual": found.residual,
        "converged": found.converged,
        "products": found.products,
        "loss": found.loss,
        "cpu": done.cpu,
    }


def train(job: Job, recipe: Growing, sets: Sets, world: World) -> Done:
    """The run of a job. A batch of 32 that grows is that of one rank here, of many elsewhere."""
    config = replace(
        recipe.config(job.seed),
        optimizer=recipe.optimizer,
        batch_growth=job.times,
        batch_growth_epoch=recipe.opening,
    )
    return run(config, sets, world, policy_of(job.arm, recipe, len(sets[0])))


def policy_of(arm: str, recipe: Growing, samples: int) -> policies.Policy:
    """What chooses the samples; `random` trains as many as `feature-filter` in every epoch."""
    filtered = policies.make("feature-filter", keep=recipe.keep, opening=recipe.opening)
    if arm == tables.FILTERED:
        return filtered
    if arm == tables.FULL:
        return policies.make("full")
    rest = recipe.epochs - recipe.opening
    return Counted((samples,) * recipe.opening + (budget(recipe.keep, samples),) * rest)


def batches(sets: Sets) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All training samples."""
    x, labels = sets[0].batch(range(len(sets[0])))
    return list(zip(x.split(BATCH), labels.split(BATCH), strict=True))


def draw(times: int, recipe: Growing, world: World, path: Path) -> None:
    """The loss around the results of seed 0 at one batch: all arms, same directions and lines."""
    from hvdfilter.report.sharpness import draw as draw_landscapes

    sets = recipe.open()
    found: list[tuple[str, Landscape]] = []
    for arm in tables.ARMS:
        done = train(Job(arm, times, 0), recipe, sets, world)
        loss = MeanLoss(done.network, batches(sets), world=world)
        found.append((f"{arm}, batch {times * recipe.batch_size}", landscape(loss, points=15)))
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_landscapes(path, found)
    print(path)


def write(store: Store, recipe: Growing, folder: Path, name: str) -> None:
    """Table, CSV and plot of all runs that are there."""
    rows = store.rows()
    lines = tables.lines(rows, recipe.batch_size)
    if not lines:
        return
    folder.mkdir(parents=True, exist_ok=True)
    said = ", ".join(f"{key} {value or 'all'}" for key, value in asdict(recipe).items())
    data = recipe.data.rpartition("/")[2]
    said = said.replace(recipe.data, data)
    heading = f"{name}: {said}; {describe(torch.device('cpu'))}"
    text = tables.markdown(lines)
    tables.write_csv(folder / f"{name}.csv", lines, heading)
    (folder / f"{name}.md").write_text(f"{heading}\n\n{text}")
    seeds = max(line.seeds for line in lines)
    title = f"{data}, {recipe.model}: mean and 95 % interval of {seeds} seeds"
    tables.plot(folder / f"{name}.png", lines, title)
    print(text)
    seconds = sum(row["cpu"] for row in rows)
    print(f"{len(rows)} runs, {seconds / 60:.1f} CPU minutes of training; tables in {folder}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(sys.modules[__name__]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=RECIPES, help="the recipe: data, network and schedule")
    parser.add_argument("--times", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--worker", type=worker, default=(0, 1), metavar="I/N")
    parser.add_argument("--landscape", type=int, metavar="TIMES", help="only draw, at this batch")
    parser.add_argument("--runs", type=Path, default=Path("runs", "large-batch"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--table", action="store_true", help="run nothing, write the tables")
    parser.add_argument("--optimizer", choices=RATES, help="at its own default rate")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--data")
    parser.add_argument("--model")
    for option in ("epochs", "train", "test", "opening"):
        parser.add_argument(f"--{option}", type=int)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except InputError as refused:
        sys.exit(f"large_batch: {refused}")
