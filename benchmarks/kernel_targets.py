"""What benchmarks.kernels is judged by: the figures that README.md and csrc/cuda/README.md promise.

Ratios of times measured in one run, and on a GPU shares of the bandwidth of a copy in that run. A
target whose rows were not measured is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import kernel_cases
from benchmarks.kernel_table import Row

OURS = "hvdfilter"
# Classes from which on, and the least share of a copy's bandwidth that a bfloat16 `score` reaches.
SHARES = ((4096, 0.85), (1000, 0.75), (100, 0.5))
# The training loss of so many classes and more takes at most so many times as long as its bytes.
TRAIN_CLASSES, TRAIN_TIMES = 4096, 1.1


@dataclass(frozen=True)
class Verdict:
    """One promise, what was measured, and whether it holds."""

    text: str
    value: float
    limit: float
    least: bool = False  # the limit is a lower one

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        word = "holds" if self.holds else "MISSED"
        return f"{self.text}: {self.value:.3f} ({bound} {self.limit:.3g}) {word}"


def verdicts(rows: Sequence[Row], memory: dict[str, int]) -> list[Verdict]:
    """All that can be judged of what was measured; `memory`: bytes at the peak, by variant."""
    on_cpu = [row for row in rows if row.device == "cpu"]
    on_gpu = [row for row in rows if row.device != "cpu"]
    return [*_cpu(on_cpu, memory), *_gpu(on_gpu)]


def _cpu(rows: Sequence[Row], memory: dict[str, int]) -> Iterator[Verdict]:
    single = [row for row in rows if row.dtype == "float32"]
    if score := _ratios(single, "score", "torch, loss alone"):
        yield Verdict("score / torch's loss alone, worst shape", max(score), 0.7)
        yield Verdict("score / torch's loss alone, geometric mean", _mean(score), 0.3)
        unfused = _mean(_ratios(single, "score", "torch, loss and norm"))
        yield Verdict("score / torch's loss and norm, geometric mean", unfused, 1 / 15)
    if train := _ratios(single, "train", "torch, no scores"):
        yield Verdict("train / torch without scores, worst shape", max(train), 1.0)
        yield Verdict("train / torch without scores, geometric mean", _mean(train), 0.6)
    plain = "plain backward, no norms"
    if norms := _ratios(single, "grad_norm", plain):
        yield Verdict("GradNorm / a plain backward", max(norms), 1.4)
    for name in kernel_cases.CLUSTERS:
        if clusters := _ratios(single, "grad_norm", plain, name):
            yield Verdict(f"{name} / a plain backward", max(clusters), 1.5)
    if memory:
        ratio = memory[OURS] / memory[plain]
        yield Verdict("GradNorm / a plain backward, peak memory", ratio, 1.3)
    brain = [row for row in rows if row.dtype == "bfloat16"]
    if wide := _ratios(brain, "score", kernel_cases.WIDE):
        yield Verdict("score, bfloat16 / float32, worst shape", max(wide), 1.0)
        yield Verdict("score, bfloat16 / float32, geometric mean", _mean(wide), 1.0)


def _gpu(rows: Sequence[Row]) -> Iterator[Verdict]:
    ours = [row for row in rows if row.variant == OURS]
    for row in ours:
        if row.what == "score" and row.dtype == "bfloat16":
            least = next((share for classes, share in SHARES if _classes(row) >= classes), None)
            if least is not None:
                text = f"score {row.shape} bfloat16, share of a copy's bandwidth"
                yield Verdict(text, row.share, least, least=True)
        if row.what == "train" and _classes(row) >= TRAIN_CLASSES:
            text = f"train {row.shape} {row.dtype}, times the time of its bytes"
            yield Verdict(text, 1 / row.share, TRAIN_TIMES)
    rivals = sorted({row.variant for row in rows if row.variant.startswith(kernel_cases.RIVALS)})
    for what in ("score", "train"):
        for rival in rivals:
            if ratios := _ratios(rows, what, rival):
                yield Verdict(f"{what} / {rival}, worst shape and dtype", max(ratios), 1.0)


def _ratios(rows: Sequence[Row], what: str, other: str, ours: str = OURS) -> list[float]:
    """Our time over the other's at every shape and dtype at which both were measured."""
    time = {(r.variant, r.shape, r.dtype): r.p50 for r in rows if r.what == what}
    return [
        mine / time[other, shape, dtype]
        for (variant, shape, dtype), mine in time.items()
        if variant == ours and (other, shape, dtype) in time
    ]


def _mean(values: Sequence[float]) -> float:
    """The geometric one."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _classes(row: Row) -> int:
    """Of a shape written as rows x classes."""
    return int(row.shape.split("x")[-1])
