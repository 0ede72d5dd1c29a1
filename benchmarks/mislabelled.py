"""How well the mislabelled are found, on sets some of whose labels are flipped on purpose.

    python -m benchmarks.mislabelled digits
    python -m benchmarks.mislabelled fashion --data idx:DIR
    python -m benchmarks.mislabelled cifar10 --data parquet:DIR

A seeded share of the training labels is changed, each uniformly to another class; the network is
trained on them by the package's own run, and the samples of the finished run are ranked: by `AUM`
(`hvdfilter.inspection.mislabelled`), by the loss noted last, highest first, or by chance.
`precision_100` is the share of flipped labels among the first 100, `precision_n` among as many as
were flipped. The sets' own wrong labels count as right ones, so 1 need not be reachable. Test
labels are left alone. One row a run and ranking goes to mislabelled.csv; other sets' rows stay.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from hvdfilter.data import Images, open_dataset
from hvdfilter.data.images import Description
from hvdfilter.inspection.mislabelled import likely_mislabelled
from hvdfilter.inspection.samples import Samples, samples_of
from hvdfilter.training import ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.world import World

FILE = Path(__file__).parent / "results" / "mislabelled.csv"
POLICIES = ("full", "kakurenbo")
SHARES = (0.05, 0.2)


@dataclass(frozen=True)
class Recipe:
    """What all runs on a set share. train: the first so many samples of either split; None: all."""

    data: str
    model: str
    epochs: int
    train: int | None = None


RECIPES = {
    "digits": Recipe("digits", "cnn:8", 24),
    "fashion": Recipe("idx:fashion-mnist", "cnn:8", 12, 3000),
    "cifar10": Recipe("parquet:cifar10", "resnet9:8", 12, 3000),
}


def flipped(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """A reader of SHARE,SEED,SET: a set whose training labels are flipped in part."""
    share, seed, data = location.split(",", 2)
    like = None if description is None else _Described(description)
    images = open_dataset(data, train=train, limit=limit, like=like)
    if train:
        images.labels = flip(images.labels, images.num_classes, float(share), int(seed))
    return images


def flip(labels: NDArray[np.int64], classes: int, share: float, seed: int) -> NDArray[np.int64]:
    """The labels with `share` of them changed, each to one of the other classes, all as likely."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(len(labels))[: round(share * len(labels))]
    changed = labels.copy()
    changed[ids] = (labels[ids] + rng.integers(1, classes, len(ids))) % classes
    return changed


def rankings(samples: Samples, seed: int) -> dict[str, NDArray[np.int64]]:
    """Ids by how suspicious they are, the most suspicious first."""
    chance = np.random.default_rng([seed, 1])  # another stream than that which flips
    return {
        "AUM": likely_mislabelled(samples),
        "last loss": np.argsort(-samples.column("loss"), kind="stable"),
        "random": chance.permutation(samples.num_samples),
    }


def precision(ranked: NDArray[np.int64], wrong: NDArray[np.bool_], first: int) -> float:
    """The share of `wrong` ones among the first so many."""
    return float(wrong[ranked[:first]].mean())


class _Described(Images):
    """A set of which only the description is asked."""

    def __init__(self, description: Description) -> None:
        super().__init__(np.empty(0, np.int64), description)


def one_run(
    recipe: Recipe, share: float, seed: int, policy: str, world: World
) -> list[dict[str, Any]]:
    """Train once; a row for each ranking."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=f"benchmarks.mislabelled:flipped:{share},{seed},{recipe.data}",
            model=recipe.model, epochs=recipe.epochs, limit=recipe.train, policy=policy,
            batch_size=32, seed=seed, runs=Path(folder), name="run",
        )  # fmt: skip
        started = time.perf_counter()
        trainer = Trainer(config, world)
        watch = Watch()  # no warning is watched for
        result = trainer.run(watch, lambda *_: None, lambda _: None)
        seconds = time.perf_counter() - started
        samples = samples_of(result.folder)
    clean = open_dataset(recipe.data, train=True, limit=recipe.train).labels
    wrong = samples.labels != clean
    return [
        {
            "samples": len(clean), "model": recipe.model, "epochs": recipe.epochs,
            "share": share, "flipped": int(wrong.sum()), "policy": policy, "seed": seed,
            "ranking": name,
            "precision_100": f"{precision(ranked, wrong, 100):.4f}",
            "precision_n": f"{precision(ranked, wrong, int(wrong.sum())):.4f}",
            "test_accuracy": f"{result.last['test_accuracy']:.4f}",
            "hidden": f"{samples.column('hidden_epochs').mean() / recipe.epochs:.4f}",
            "seconds": f"{seconds:.1f}",
        }
        for name, ranked in rankings(samples, seed).items()
    ]  # fmt: skip


def write(path: Path, data: str, rows: Sequence[dict[str, Any]], machine: str) -> None:
    """The rows of a set in the place of its earlier ones, below how each set's were made."""
    lines = path.read_text().splitlines() if path.exists() else []
    made = [line for line in lines if line.startswith("#") and not line.startswith(f"# {data}:")]
    table = csv.DictReader(line for line in lines if not line.startswith("#"))
    others = [row for row in table if row["data"] != data]
    with open(path, "w", newline="") as file:
        file.write("".join(f"{line}\n" for line in [*made, f"# {data}: {machine}"]))
        writer = csv.DictWriter(file, ["data", *rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *({"data": data, **row} for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--data", help="where the set is")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=FILE)
    options = parser.parse_args()
    recipe = RECIPES[options.name]
    if options.data:
        recipe = Recipe(options.data, recipe.model, recipe.epochs, recipe.train)
    world, rows = ring.start(), []
    torch.set_num_threads(1)
    for share in SHARES:
        for seed in range(options.seeds):
            for policy in POLICIES:
                rows += one_run(recipe, share, seed, policy, world)
                for row in rows[-3:]:
                    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    write(options.csv, options.name, rows, describe(world.device))


if __name__ == "__main__":
    main()
