"""What the neighbours do to short runs on digits: each against the plain run it changes.

    python -m benchmarks.neighbours     a table and benchmarks/results/neighbours.csv

scikit-learn's 1,438 training digits, network cnn:8, 12 epochs of batches of 32 (30 of 256 for
the extrapolated steps), one rank and one thread; five seeds of weights, order and augmentation, the
same for a variant and its control, of which differences are taken seed by seed. A short run of a
small network on an easy set: it shows what a mechanism does, and no more than that. What shaping
costs is also measured where images are large enough for arithmetic to be the cost. `--only` appends
the answers to some questions to the table that is there.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from benchmarks.accuracy_results import Interval
from benchmarks.machine import describe
from benchmarks.neighbours_run import Measures, Variant, as_many, changed, train

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("question", "variant", "seed", "measure", "value")
LARGE = {"batch_size": 256, "epochs": 30}
BIG = {"model": "resnet9:16", "epochs": 4}
GROWING = {"policy": "expansion", "policy_options": {"opening": 2, "start": 0.3, "until": 0.7}}
RANDOM = Variant("random, as many")


def adversarial(share: float) -> dict[str, object]:
    options = {"epsilon": 0.05, "share": share}
    return {"shaping": "adversarial", "shaping_options": options}


#: By question: the control first, then what is held against it.
QUESTIONS: dict[str, tuple[Variant, ...]] = {
    "shaped inputs": (
        Variant("plain", attacked=True),
        Variant("friendly", {"shaping": "friendly"}, attacked=True),
        Variant("adversarial, highest 30 %", adversarial(0.3), attacked=True),
        Variant("adversarial, random 30 %", adversarial(0.3), by_chance=True, attacked=True),
        Variant("adversarial, all", adversarial(1.0), attacked=True),
    ),
    "cost of shaping, resnet9:16 on 32 x 32": (
        Variant("adversarial, all", BIG | adversarial(1.0), data="large"),
        Variant("adversarial, highest 30 %", BIG | adversarial(0.3), data="large"),
    ),
    "friendly, a fifth of the labels wrong": (
        Variant("plain", data="noisy"),
        Variant("friendly", {"shaping": "friendly"}, data="noisy"),
    ),
    "extrapolation, rate 0.1": tuple(
        Variant(f"{factor:g}", LARGE | {"lr": 0.1, "extrapolation": factor})
        for factor in (0.0, 0.5, 1.0)
    ),
    "extrapolation, rate 0.2": tuple(
        Variant(f"{factor:g}", LARGE | {"lr": 0.2, "extrapolation": factor})
        for factor in (0.0, 0.5, 1.0)
    ),
    "growing set": (RANDOM, Variant("expansion", GROWING)),
    "growing set, a fifth of the labels wrong": (
        Variant(RANDOM.name, data="noisy"),
        Variant("expansion", GROWING, data="noisy"),
    ),
    "exchange, policy loss": (
        Variant("float32", {"policy": "loss"}, after=changed),
        Variant("float16", {"policy": "loss", "exchange": "float16"}),
        Variant("8bit", {"policy": "loss", "exchange": "8bit"}),
    ),
    "two classes of 12 samples": (
        Variant("plain", data="rare"),
        *(
            Variant(f"minority {share:g}", {"policy_options": {"minority": share}}, data="rare")
            for share in (0.5, 1.0)
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--out", type=Path, default=RESULTS / "neighbours.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[str, str, int, str, str]] = []
    for question in options.only:
        found: dict[str, list[Measures]] = {}
        for seed in range(options.seeds):
            for name, measures in answers(QUESTIONS[question], seed).items():
                found.setdefault(name, []).append(measures)
                rows += [
                    (question, name, seed, measure, f"{value:.6g}")
                    for measure, value in measures.items()
                ]
        show(question, [variant.name for variant in QUESTIONS[question]], found)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    whole = options.only == list(QUESTIONS) or not options.out.exists()
    with open(options.out, "w" if whole else "a", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        table = csv.writer(file, lineterminator="\n")
        if whole:
            table.writerow(COLUMNS)
        table.writerows(rows)


def answers(variants: tuple[Variant, ...], seed: int) -> dict[str, Measures]:
    """What each variant of one question measures; a random control is as long as its subject."""
    found = {}
    records = None
    for variant in reversed(variants):
        if variant.name == RANDOM.name:
            assert records is not None
            variant = Variant(variant.name, data=variant.data, policy=as_many(records))
        found[variant.name], records = train(variant, seed)
    return found


def show(question: str, names: list[str], found: dict[str, list[Measures]]) -> None:
    """A line a variant: means, and for shares the interval of the gain over the control."""
    print(f"\n{question}")
    control = found[names[0]]
    for name in names:
        cells = []
        for measure in found[name][0]:
            values = [measures[measure] for measures in found[name]]
            mean = Interval.of(values)
            if measure.startswith(("CPU", "steps", "bytes", "inputs")):
                cells.append(f"{measure} {mean.mean:.4g}")
                continue
            cells.append(f"{measure} {mean}")
            if name != names[0] and measure in control[0]:
                pairs = zip(values, control, strict=True)
                gain = Interval.of([value - other[measure] for value, other in pairs])
                cells[-1] += f" (gain {gain})"
        print(f"  {name}: " + "; ".join(cells), flush=True)


if __name__ == "__main__":
    main()
