"""What the policy `gradient-clustering` does to the variance in training, as it deals its batches.

    python -m benchmarks.gradient_clustering_runs     a table, results/gradient-clustering-runs.csv

Runs of `cnn` on digits, as they are or with half of them near copies of eight images, on one rank.
At every epoch's end the variance of the mini-batch gradient is measured over 40 batches that the
policy dealt, beside 40 uniform ones (`--variance`); a row is their ratio, the geometric mean of the
epochs in which clusters were drawn from. `full` is measured the same way: its ratio is 1 but for
chance.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.accuracy_results import Interval
from benchmarks.machine import describe
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train

RESULTS = Path(__file__).parent / "results"
SETS = {"digits": "digits", "near copies": "benchmarks.near_copies:open_set"}
DRAWS = ("full", "shares", "proportional", "equal")
# Clusters are first drawn from in the third epoch.
FIRST = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--draws", nargs="+", default=list(DRAWS), choices=DRAWS)
    parser.add_argument("--out", type=Path, default=RESULTS / "gradient-clustering-runs.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for data in options.sets:
        for draws in options.draws:
            found = [measured(data, draws, seed, options.epochs) for seed in range(options.seeds)]
            rows += [(data, draws, seed, *row) for seed, row in enumerate(found)]
            ratios = Interval.of([math.log(ratio) for ratio, _ in found])
            low, high = (math.exp(ratios.mean + side * ratios.half) for side in (-1, 1))
            accuracy = Interval.of([accuracy for _, accuracy in found])
            print(
                f"{data}, {draws}: variance / uniform {math.exp(ratios.mean):.2f} "
                f"({low:.2f} to {high:.2f}), accuracy {accuracy}",
                flush=True,
            )
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}, {options.epochs} epochs, batch 32\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("data", "draws", "seed", "variance over uniform", "test accuracy"))
        table.writerows(rows)


def measured(data: str, draws: str, seed: int, epochs: int) -> tuple[float, float]:
    """(variance over that of uniform batches, test accuracy after the last epoch) of one run."""
    clustered = draws != "full"
    with tempfile.TemporaryDirectory() as runs:
        config = TrainConfig(
            data=SETS[data],
            policy="gradient-clustering" if clustered else "full",
            policy_options={"draws": draws} if clustered else {},
            epochs=epochs,
            seed=seed,
            variance=40,
            runs=Path(runs),
        )
        folder = train(config).folder
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ratios = [
        math.log(line["variance"]["policy"]["variance"] / line["variance"]["uniform"]["variance"])
        for line in lines[FIRST:]
    ]
    return math.exp(statistics.fmean(ratios)), lines[-1]["test_accuracy"]


if __name__ == "__main__":
    main()
