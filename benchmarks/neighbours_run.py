"""One run of `benchmarks.neighbours`: the package's own `Trainer` on digits that are opened once.

The sets: digits as they are, with a fifth of the training labels wrong, and with two classes cut
down to a few samples. What a run is asked afterwards is measured here too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy_run import Counted, SplitCosts
from hvdfilter import policies
from hvdfilter.agreement import Blocks, KeepMask, SoloCollective, merge, random, select
from hvdfilter.agreement.precision import Precision
from hvdfilter.data import Images, open_dataset
from hvdfilter.data.images import ArrayImages
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.training.shaping import Adversarial, shaped
from hvdfilter.world import World, current

Sets = tuple[Images, Images]
Measures = dict[str, float]
RARE, LEFT = (3, 8), 12  # the classes that are cut down, and to how many samples each
ATTACK = Adversarial(epsilon=0.05, steps=20, share=1.0)


@dataclass(frozen=True)
class Variant:
    """One way to train. policy: where it is an object and not options of the configuration.

    by_chance: the samples to perturb are picked at random. attacked: by `ATTACK`, in the end.
    after: looked at after every epoch.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    data: str = "digits"
    policy: policies.Policy | None = None
    by_chance: bool = False
    attacked: bool = False
    after: Callable[[Trainer], Measures] | None = None


def sets(name: str, seed: int) -> Sets:
    """`digits`, `noisy` or `rare` digits, other ones for another seed, or `large` random images."""
    if name == "large":
        train_set = open_dataset("synthetic:128,3,32,32,10", train=True)
        return train_set, open_dataset("synthetic:128,3,32,32,10", train=False, like=train_set)
    train_set = open_dataset("digits", train=True)
    test_set = open_dataset("digits", train=False, like=train_set)
    labels, ids = train_set.labels.copy(), np.arange(len(train_set))
    rng = np.random.default_rng(seed)
    if name == "noisy":
        wrong = rng.permutation(len(labels))[: len(labels) // 5]
        labels[wrong] = (labels[wrong] + rng.integers(1, 10, wrong.size)) % 10
    if name == "rare":
        order = rng.permutation(ids)
        few = [order[labels[order] == digit][:LEFT] for digit in RARE]
        ids = np.sort(np.concatenate([ids[~np.isin(labels, RARE)], *few]))
    x, _ = train_set.batch(ids)
    return ArrayImages(x, labels[ids], train_set.description), test_set


class Run(Trainer):
    """A `Trainer` over sets that are open."""

    def __init__(self, config: TrainConfig, world: World, opened: Sets, variant: Variant) -> None:
        self._sets = opened
        super().__init__(config, world, variant.policy)
        self.filter.costs = SplitCosts()
        shaper = self.train_step.shaper
        if variant.by_chance and shaper is not None:
            informed = shaper.begin_epoch

            def begin_epoch() -> None:
                informed()
                picked = shaper._picked
                assert picked is not None
                shaper._picked = chance(self.filter.mask, picked.count, self.epoch)

            shaper.begin_epoch = begin_epoch  # type: ignore[method-assign]

    def _open_data(self) -> Sets:
        return self._sets


def chance(mask: KeepMask, count: int, epoch: int) -> KeepMask:
    """As many of the kept samples, at random."""
    ids = np.arange(mask.num_samples)
    key = random.uniform_keys(0, epoch, ids, 1)
    key[~mask.numpy()] = -1
    alone = SoloCollective()
    blocks = Blocks(mask.num_samples, 1)
    return merge(select(key, count, blocks, alone), blocks, alone)


def train(variant: Variant, seed: int) -> tuple[Measures, list[dict[str, Any]]]:
    """Train it; what there is to say, and the records of its epochs."""
    opened = sets(variant.data, seed)
    base = {"data": "digits", "model": "cnn:8", "policy": "full", "epochs": 12, "batch_size": 32}
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(**(base | variant.options), seed=seed, runs=Path(folder), name="run")
        run = Run(config, current(), opened, variant)
        watch, records, seen = Watch(), [], []
        for _ in range(config.epochs):
            records.append(run.run_epoch(watch, lambda *_: None))
            if variant.after is not None:
                seen.append(variant.after(run))
    measures = {
        "accuracy": records[-1]["test_accuracy"],
        "steps": sum(record["steps"] for record in records),
        "CPU seconds": sum(record["cpu_seconds"] for record in records),
        **{name: max(each[name] for each in seen) for name in (seen[0] if seen else {})},
    }
    if config.shaping is not None:
        measures["inputs shaped"] = sum(record["shaped"] for record in records)
        worked = sum(record["seconds"]["cpu shaping"] for record in records)
        measures["CPU seconds shaping"] = worked
    if variant.attacked:
        measures["accuracy under attack"] = under_attack(run)
    if run.filter.policy.columns:
        measures["bytes a score"] = run.filter.book.record_bytes
    if variant.data == "rare":
        measures |= recalls(run)
    return measures, records


def as_many(records: Sequence[dict[str, Any]]) -> Counted:
    """The random choice of as many samples in every epoch."""
    return Counted(tuple(record["kept"] for record in records))


def under_attack(run: Trainer) -> float:
    """Share of the test set that is right, and stays right under `ATTACK`."""
    x, y = run.test_set.batch(np.arange(len(run.test_set)))
    run.model.eval()

    def network(pixels: torch.Tensor) -> torch.Tensor:
        return run.network(pixels * 255)

    pixels = x.float() / 255
    harder, own = shaped(network, pixels, y, ATTACK, ATTACK.epsilon)
    with torch.no_grad():
        right = (own.argmax(1) == y) & (network(harder).argmax(1) == y)
    return float(right.double().mean())


def recalls(run: Trainer) -> Measures:
    """Recall of the rare classes and of the others, each the mean over its classes."""
    x, y = run.test_set.batch(np.arange(len(run.test_set)))
    run.model.eval()
    with torch.no_grad():
        said = run.network(x).argmax(1)
    recall = [float((said[y == digit] == digit).double().mean()) for digit in range(10)]
    rare = [recall[digit] for digit in RARE]
    others = [recall[digit] for digit in range(10) if digit not in RARE]
    return {"recall, rare": float(np.mean(rare)), "recall, others": float(np.mean(others))}


def changed(trainer: Trainer) -> Measures:
    """The share of the mask of the 70 % highest losses that a low precision would change."""
    losses = np.ascontiguousarray(trainer.filter.book.column("loss"))
    keep = int(0.7 * losses.size)
    exact = _highest(losses, keep)
    found = {}
    for exchange in ("float16", "8bit"):
        precision = Precision(exchange, ["loss"])
        code = precision.codes(precision.extent({"loss": losses}))["loss"]
        codes = code.encode(losses)
        other = _highest(code.decode(codes), keep)
        assert (codes[exact != other] == codes[exact].min()).all()  # the law that is tested
        found[f"mask changed, {exchange}"] = float(np.mean(exact != other))
        found[f"tied at the cut, {exchange}"] = float(np.mean(codes == codes[exact].min()))
    return found


def _highest(losses: NDArray[np.float32], keep: int) -> NDArray[np.bool_]:
    return select(losses, keep, Blocks(losses.size, 1), SoloCollective())
