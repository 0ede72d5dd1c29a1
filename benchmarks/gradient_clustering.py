"""What gradient clusters do to the variance of the mini-batch gradient, during training.

    python -m benchmarks.gradient_clustering     a table, results/gradient-clustering.csv and .png

A small network is trained on scikit-learn's digits, as they are or with half of them replaced by
near copies of eight images. Training draws uniformly; the clusters only watch. After some epochs
every sample's gradient is computed by itself, and from all of them, exactly, the variance of a
draw from the clusters, over that of a uniform draw: by turns from each cluster (weight M N_k / N),
or by the shares that `end_epoch` tells (weight N_k / (N share_k)). The clusters are those assigned
while the epoch trained, or "again": assigned to the gradients as they are, in one more pass. The
table has the variance of a mini-batch too, over its gradient's mean squared length.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from benchmarks.machine import describe
from hvdfilter.clustering import EpochClusters, GradientClusters
from hvdfilter.models.cnn import CNN

RESULTS = Path(__file__).parent / "results"
DATA = ("near copies", "digits")
DRAWS = ("by turns", "by shares", "by turns, again", "by shares, again")
COLUMNS = (
    "data", "rate", "clusters", "draws", "seed", "epoch", "batch", "over_uniform", "normalised",
    "normalised_uniform",
)  # fmt: skip
EPOCHS = (2, 4, 8, 12)
Key = tuple[str, float, int, str, int]  # data, rate, clusters, draws, epoch
Found = dict[Key, list[float]]  # variances over uniform's, of the seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clusters", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "gradient-clustering.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: Found = {}
    rows = []
    for data, rate, number in product(DATA, options.rates, options.clusters):
        for seed in range(options.seeds):
            for draws, epoch, *values in train(data, rate, number, seed, options):
                found.setdefault((data, rate, number, draws, epoch), []).append(values[0])
                place = (data, rate, number, draws, seed, epoch, options.batch)
                rows.append((*place, *(f"{value:.5f}" for value in values)))
        print_lines(found, data, rate, number)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
    plot(found, options, options.out.with_suffix(".png"))


def images(data: str, seed: int) -> tuple[Tensor, Tensor]:
    """[N, 1, 8, 8] and labels, shuffled."""
    make = torch.Generator().manual_seed(seed)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=make)
    x, y = x[order], y[order]
    if data == "near copies":
        half = len(x) // 2
        copied = torch.arange(half) % 8
        noise = 0.02 * torch.randn(half, 1, 8, 8, generator=make)
        x[:half], y[:half] = x[copied] + noise, y[copied]
        order = torch.randperm(len(x), generator=make)
        x, y = x[order], y[order]
    return x, y


def train(
    data: str, rate: float, number: int, seed: int, options: argparse.Namespace
) -> Iterator[tuple[str, int, float, float, float]]:
    """Draws, epoch, and the last three columns, after some of the epochs."""
    x, y = images(data, seed)
    torch.manual_seed(seed)
    model = CNN(1, 10, options.width)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    clusters = GradientClusters(model, number, seed)

    def one_pass(learn: bool) -> tuple[Tensor, EpochClusters]:
        cluster = torch.zeros(len(x), dtype=torch.int64)
        order = torch.randperm(len(x)) if learn else torch.arange(len(x))
        for ids in order.split(options.batch):
            optimizer.zero_grad()
            with clusters:
                F.cross_entropy(model(x[ids]), y[ids]).backward()
            cluster[ids] = clusters.assign()
            if learn:
                optimizer.step()
        return cluster, clusters.end_epoch()

    for epoch in range(1, max(EPOCHS) + 1):
        in_training = one_pass(learn=True)
        if epoch not in EPOCHS:
            continue
        state = clusters.state_dict()
        again = one_pass(learn=False)
        clusters.load_state_dict(state)
        gradients = own_gradients(model, x, y)
        mean = gradients.mean(dim=0)
        uniform = float((gradients - mean).square().sum()) / len(x)
        signal = float(mean.square().sum()) * options.batch
        drawn = [v for pair in (in_training, again) for v in variances(gradients, *pair)]
        for draws, one in zip(DRAWS, drawn, strict=True):
            yield draws, epoch, one / uniform, one / (one + signal), uniform / (uniform + signal)


def variances(gradients: Tensor, cluster: Tensor, told: EpochClusters) -> tuple[float, float]:
    """Of one draw by turns, and of one by the shares that were told."""
    by_turns = by_shares = 0.0
    occupied = cluster.unique().tolist()
    for k in occupied:
        rows = gradients[cluster == k]
        spread = len(rows) * float((rows - rows.mean(dim=0)).square().sum()) / len(gradients) ** 2
        by_turns += spread * len(occupied)
        by_shares += spread / float(told.shares[k])
    return by_turns, by_shares


def own_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """[N, parameters], float64, by torch.func."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss_of(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, image[None]), label[None])

    each = vmap(grad(loss_of), in_dims=(None, 0, 0))
    parts = [each(parameters, *batch) for batch in zip(x.split(256), y.split(256), strict=True)]
    flat = [torch.cat([g.flatten(1) for g in part.values()], dim=1) for part in parts]
    return torch.cat(flat).double()


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, 0.0
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, float(half)


def print_lines(found: Found, data: str, rate: float, number: int) -> None:
    """Each way of drawing, at every look."""
    print(f"{data}, rate {rate}, {number} clusters: variance over uniform's")
    for draws in DRAWS:
        cells = []
        for epoch in EPOCHS:
            mean, half = interval(found[data, rate, number, draws, epoch])
            cells.append(f"{epoch}: {mean:.2f} +- {half:.2f}")
        print(f"  {draws:18}" + "  ".join(cells), flush=True)


def plot(found: Found, options: argparse.Namespace, path: Path) -> None:
    """A row a data set, a column a rate: variance over uniform's during training."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    number = options.clusters[-1]
    figure, panels = pyplot.subplots(
        2, len(options.rates), figsize=(9, 6.4), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, data in zip(panels, DATA, strict=True):
        for axes, rate in zip(row, options.rates, strict=True):
            axes.axhline(1, color="black", linewidth=1, label="uniform")
            for draws in DRAWS:
                keys = [(data, rate, number, draws, epoch) for epoch in EPOCHS]
                means = [interval(found[key])[0] for key in keys]
                color = "C1" if "turns" in draws else "C0"
                style = "--" if "again" in draws else "-"
                axes.plot(EPOCHS, means, f"o{style}", markersize=4, color=color, label=draws)
                low, high = ([of(found[key]) for key in keys] for of in (min, max))
                axes.fill_between(EPOCHS, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set_yscale("log")
            axes.set_title(f"{data}, learning rate {rate:g}", fontsize=10)
            axes.grid(alpha=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
        axes.set_xticks(EPOCHS)
    for axes in panels[:, 0]:
        axes.set_ylabel("variance / variance of uniform draws")
    panels[0, 0].legend(fontsize=8)
    figure.suptitle(f"{number} clusters, {options.seeds} seeds (mean, least to most)", fontsize=10)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
