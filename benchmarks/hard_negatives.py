"""What negatives from the batches of all ranks are worth, against those of the own batch.

    python -m benchmarks.hard_negatives     a table, benchmarks/results/hard-negatives.csv and .png

The upper and the lower half of a digit (scikit-learn's) are a pair; recall@1 is the share of test
halves, both ways, whose nearest other half of 360 is their own. One process stands for all ranks:
it takes the mean of what each of them would differentiate, which is the gradient they would average
(tests/distributed/test_hard_negative.py). Pairs, order and first weights are those of the seed
alone, so variants differ in the loss and in nothing else.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import describe
from hvdfilter.losses import hard_negative

RESULTS = Path(__file__).parent / "results"
TEST = 360
EVERY = 15  # epochs from one test to the next
COLUMNS = ("negatives", "hinges", "ranks", "batch", "rate", "seed", "epoch", "recall_at_1")
VARIANTS = (("global", "max"), ("local", "max"), ("global", "sum"), ("local", "sum"))
Loss = Callable[[Tensor, Tensor], Tensor]
Curves = dict[tuple[str, str], dict[int, list[float]]]  # recalls of the seeds, by epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="pairs of all ranks together")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "hard-negatives.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    curves: Curves = {}
    for negatives, hinges in VARIANTS:
        curve = curves.setdefault((negatives, hinges), {})
        # The whole batch is the same batch on any number of ranks.
        loss = loss_of(options.ranks if negatives == "local" else 1, hinges)
        for seed in range(options.seeds):
            place = (negatives, hinges, options.ranks, options.batch, options.rate, seed)
            for epoch, recall in train(loss, options.batch, options.epochs, options.rate, seed):
                curve.setdefault(epoch, []).append(recall)
                rows.append((*place, epoch, f"{recall:.4f}"))
            print(*rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
    for (negatives, hinges), curve in curves.items():
        cells = [f"{epoch}: {show(curve[epoch])}" for epoch in sorted(curve)]
        print(f"{negatives:>6} {hinges}  " + "  ".join(cells))
    plot(curves, options, options.out.with_suffix(".png"))


def show(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def loss_of(parts: int, hinges: str) -> Loss:
    """The mean over `parts` equal pieces of the batch of the loss of each piece alone."""

    def loss(images: Tensor, captions: Tensor) -> Tensor:
        pieces = zip(images.chunk(parts), captions.chunk(parts), strict=True)
        return torch.stack([hard_negative(a, b, hinges=hinges) for a, b in pieces]).mean()

    return loss


def train(
    loss: Loss, batch: int, epochs: int, rate: float, seed: int
) -> Iterator[tuple[int, float]]:
    """Train on the other digits; epochs done and recall@1, every `EVERY` of them."""
    torch.manual_seed(seed)
    pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    pixels = pixels[torch.randperm(len(pixels))]
    upper, lower = (
        nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2)
    )
    optimizer = torch.optim.Adam([*upper.parameters(), *lower.parameters()], lr=rate)
    train_set, test = pixels[TEST:], pixels[:TEST]
    for epoch in range(1, epochs + 1):
        # The last, shorter batch is left out: its pieces would be of other sizes.
        for x in train_set[torch.randperm(len(train_set))].split(batch)[:-1]:
            optimizer.zero_grad()
            loss(upper(x[:, :32]), lower(x[:, 32:])).backward()
            optimizer.step()
        if epoch % EVERY == 0:
            with torch.no_grad():
                yield epoch, recall_at_1(upper(test[:, :32]), lower(test[:, 32:]))


def recall_at_1(images: Tensor, captions: Tensor) -> float:
    """The share whose nearest of the other side is its own, both ways averaged."""
    similar = F.normalize(images) @ F.normalize(captions).T
    own = torch.arange(len(similar))
    return float(sum((similar.argmax(axis) == own).double().mean() for axis in (0, 1)) / 2)


def plot(curves: Curves, options: argparse.Namespace, path: Path) -> None:
    """Recall against epochs: a line at the mean of the seeds, a band from least to most."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    for (negatives, hinges), curve in curves.items():
        others = options.batch // (1 if negatives == "global" else options.ranks) - 1
        epochs = sorted(curve)
        line = axes.plot(
            epochs,
            [statistics.mean(curve[epoch]) for epoch in epochs],
            "-" if hinges == "max" else "--",
            color="C0" if negatives == "global" else "C1",
            marker="o",
            markersize=3,
            label=f"{hinges} of hinges, {others} negatives ({negatives})",
        )[0]
        low, high = ([of(curve[epoch]) for epoch in epochs] for of in (min, max))
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_xlabel("epochs")
    axes.set_ylabel(f"recall@1 of {TEST}")
    axes.set_title(
        f"halves of digits, {options.batch} pairs a step, {options.seeds} seeds", fontsize=10
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
