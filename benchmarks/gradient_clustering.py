"""What gradient clusters do to the variance of the mini-batch gradient, during training.

    python -m benchmarks.gradient_clustering     a table, results/gradient-clustering.csv and .png

A small network is trained on scikit-learn's digits, as they are or with half of them replaced by
near copies of eight images. Training draws uniformly; the clusters only watch. After some epochs
every sample's gradient is computed by itself, and from all of them, exactly, the variance of a
mini-batch gradient that is drawn uniformly, by turns from the clusters that the last epoch assigned
(weight M N_k / N), or from each in proportion to sqrt(N_k S_k). It is normalised: divided by the
mean squared length of that mini-batch gradient, so 1 is all noise.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from benchmarks.machine import describe
from hvdfilter.clustering import GradientClusters
from hvdfilter.models.cnn import CNN

RESULTS = Path(__file__).parent / "results"
DATA = ("near copies", "digits")
DRAWS = ("uniform", "by turns", "by spread")
COLUMNS = ("data", "clusters", "draws", "seed", "epoch", "batch", "normalised_variance")
EPOCHS = (2, 4, 8, 12, 16)
Key = tuple[str, int, str, int]  # data, clusters, draws, epoch
Found = dict[Key, list[float]]  # normalised variances of the seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clusters", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "gradient-clustering.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: Found = {}
    rows = []
    for data in DATA:
        for number in options.clusters:
            for seed in range(options.seeds):
                for draws, epoch, value in train(data, number, seed, options):
                    found.setdefault((data, number, draws, epoch), []).append(value)
                    rows.append((data, number, draws, seed, epoch, options.batch, f"{value:.5f}"))
            print_line(found, data, number)
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
    data: str, number: int, seed: int, options: argparse.Namespace
) -> Iterator[tuple[str, int, float]]:
    """Draws, epoch and normalised variance, after some of the epochs."""
    x, y = images(data, seed)
    torch.manual_seed(seed)
    model = CNN(1, 10, options.width)
    optimizer = torch.optim.SGD(model.parameters(), options.rate, momentum=0.9)
    clusters = GradientClusters(model, number, seed)
    cluster = torch.zeros(len(x), dtype=torch.int64)
    for epoch in range(1, max(EPOCHS) + 1):
        for ids in torch.randperm(len(x)).split(options.batch):
            optimizer.zero_grad()
            with clusters:
                F.cross_entropy(model(x[ids]), y[ids]).backward()
            cluster[ids] = clusters.assign()
            optimizer.step()
        clusters.end_epoch()
        if epoch in EPOCHS:
            for draws, value in zip(DRAWS, variances(model, x, y, cluster), strict=True):
                # Of a mini-batch: noise over noise and signal.
                noise = value[0] / options.batch
                yield draws, epoch, noise / (noise + value[1])


def variances(model: nn.Module, x: Tensor, y: Tensor, cluster: Tensor) -> list[tuple[float, float]]:
    """For each way of drawing: the variance of one draw, and the squared length of the mean."""
    gradients = own_gradients(model, x, y)
    mean, total = gradients.mean(dim=0), len(x)
    members = [gradients[cluster == k] for k in cluster.unique()]
    scatter = [float((rows - rows.mean(dim=0)).square().sum()) for rows in members]
    sizes = [len(rows) for rows in members]
    uniform = float((gradients - mean).square().sum()) / total
    pairs = list(zip(sizes, scatter, strict=True))
    by_turns = len(members) * sum(n * s for n, s in pairs) / total**2
    by_spread = sum(math.sqrt(n * s) for n, s in pairs) ** 2 / total**2
    length = float(mean.square().sum())
    return [(value, length) for value in (uniform, by_turns, by_spread)]


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


def print_line(found: Found, data: str, number: int) -> None:
    """Each way of drawing at the first and the last look."""
    cells = []
    for draws in DRAWS:
        for epoch in (EPOCHS[0], EPOCHS[-1]):
            mean, half = interval(found[data, number, draws, epoch])
            cells.append(f"{draws} after {epoch}: {mean:.3f} +- {half:.3f}")
    print(f"{data}, {number} clusters  " + "  ".join(cells), flush=True)


def plot(found: Found, options: argparse.Namespace, path: Path) -> None:
    """A row a data set: over training at 16 clusters, or the most, and at its end over clusters."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = 16 if 16 in options.clusters else options.clusters[-1]
    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    for (left, right), data in zip(panels, DATA, strict=True):
        for draws, color in zip(DRAWS, ("C7", "C0", "C1"), strict=True):
            for axes, places, keys in (
                (left, list(EPOCHS), [(data, shown, draws, e) for e in EPOCHS]),
                (
                    right,
                    options.clusters,
                    [(data, m, draws, EPOCHS[-1]) for m in options.clusters],
                ),
            ):
                means, halves = zip(*(interval(found[key]) for key in keys), strict=True)
                axes.errorbar(
                    places, means, halves, fmt="o-", markersize=4, capsize=3, color=color,
                    label=draws if draws == "uniform" else f"from clusters, {draws}",
                )  # fmt: skip
        left.set_title(f"{data}: during training, {shown} clusters", fontsize=10)
        right.set_title(f"{data}: after {EPOCHS[-1]} epochs", fontsize=10)
        left.set_xlabel("epoch")
        right.set_xlabel("clusters")
        right.set_xscale("log", base=2)
        right.set_xticks(options.clusters, [str(m) for m in options.clusters])
        left.set_ylabel(f"normalised variance, batch {options.batch}")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
