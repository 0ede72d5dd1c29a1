"""Products with the Hessian until its largest eigenvalue is known: Lanczos and power iteration.

    python -m benchmarks.eigenvalue            digits, two networks, three starts: CSV and table

Both are given the same start, and end when the residual ||H v - value v|| is below a share of the
value. Power iteration finds the eigenvalue of largest magnitude, which here is the largest one.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy_run import Recipe, run
from benchmarks.large_batch import batches
from benchmarks.machine import describe
from hvdfilter import policies
from hvdfilter.sharpness import MeanLoss, largest_eigenvalue
from hvdfilter.sharpness.eigenvalue import start
from hvdfilter.training import ring

RESULTS = Path(__file__).parent / "results"
NETWORKS = {"cnn:8": 0.05, "resnet9:4": 0.2}  # and the rate that trains it
COLUMNS = ("model", "weights", "batch", "seed", "tolerance", "method", "value", "products")
TOLERANCES = (1e-2, 1e-3)
MOST = 200


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train", type=int, help="samples")
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 256])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "eigenvalue.csv")
    options = parser.parse_args(arguments)
    world = ring.start()
    torch.set_num_threads(1)
    rows = []
    for model in options.models:
        for batch in options.batches:
            recipe = Recipe("digits", model, options.epochs, batch, NETWORKS[model], options.train)
            sets = recipe.open()
            network = run(recipe.config(0), sets, world, policies.make("full")).network
            loss = MeanLoss(network, batches(sets), world=world)
            for seed in range(options.seeds):
                powers = power(loss, seed)
                for tolerance in TOLERANCES:
                    found = largest_eigenvalue(loss, tolerance=tolerance, most=MOST, seed=seed)
                    same = (model, loss.size, batch, seed, tolerance)
                    rows.append((*same, "Lanczos", found.value, found.products))
                    rows.append((*same, "power iteration", *powers[tolerance]))
            started = time.perf_counter()
            loss.product(start(loss, 0))
            seconds = time.perf_counter() - started
            print(f"{model}, batch {batch}: {loss.size} weights, {seconds:.2f} s a product")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-2], f"{row[-2]:.7g}", row[-1]) for row in rows)
    print(f"{'products, least to most':32}{'residual 1e-2':>16}{'1e-3':>12}")
    for model in options.models:
        for batch in options.batches:
            for method in ("Lanczos", "power iteration"):
                spans = []
                for tolerance in TOLERANCES:
                    key = (model, batch, tolerance, method)
                    counts = [r[-1] for r in rows if (r[0], r[2], r[4], r[5]) == key]
                    spans.append(f"{min(counts)} to {max(counts)}")
                print(f"{f'{model}, {batch}: {method}':32}{spans[0]:>16}{spans[1]:>12}")


def power(loss: MeanLoss, seed: int) -> dict[float, tuple[float, int]]:
    """(value, products) by tolerance; at most `MOST` products, however large the residual."""
    vector, products = start(loss, seed), 0
    found: dict[float, tuple[float, int]] = {}
    while len(found) < len(TOLERANCES):
        image, _ = loss.product(vector)
        value, products = float(vector @ image), products + 1
        residual = np.linalg.norm(image - value * vector) / abs(value)
        for tolerance in TOLERANCES:
            if residual <= tolerance or products == MOST:
                found.setdefault(tolerance, (value, products))
        vector = image / np.linalg.norm(image)
    return found


if __name__ == "__main__":
    main()
