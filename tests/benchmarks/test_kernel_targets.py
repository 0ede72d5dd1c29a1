"""The verdicts of benchmarks.kernels, on rows made to keep each promise or break it by a hair."""

from __future__ import annotations

import pytest

from benchmarks.kernel_table import Row
from benchmarks.kernel_targets import Verdict, verdicts


def row(what: str, variant: str, shape: str, dtype: str, p50: float, share: float = 0.0) -> Row:
    return Row(what, variant, shape, dtype, "cuda", "1", p50, p50, p50, 1, share)


def judged(rows: list[Row]) -> dict[str, Verdict]:
    return {verdict.text: verdict for verdict in verdicts(rows, {})}


@pytest.mark.parametrize(
    ("shape", "least"), [("9x128256", 0.85), ("9x4096", 0.85), ("9x1000", 0.75), ("9x100", 0.5)]
)
def test_score_is_held_to_its_share_of_a_copy(shape: str, least: float) -> None:
    text = f"score {shape} bfloat16, share of a copy's bandwidth"
    kept = judged([row("score", "hvdfilter", shape, "bfloat16", 1.0, least)])[text]
    broken = judged([row("score", "hvdfilter", shape, "bfloat16", 1.0, least - 0.01)])[text]
    assert kept.holds and str(kept).endswith("holds")
    assert not broken.holds and str(broken).endswith("MISSED")


def test_what_is_not_promised_is_not_judged() -> None:
    rows = [
        row("score", "hvdfilter", "9x10", "bfloat16", 1.0, 0.1),  # ten classes
        row("score", "hvdfilter", "9x4096", "float32", 1.0, 0.1),
        row("train", "hvdfilter", "9x1000", "bfloat16", 1.0, 0.1),
    ]
    assert judged(rows) == {}


def test_the_training_loss_is_held_to_its_bytes_and_to_every_rival() -> None:
    rows = [
        row("train", "hvdfilter", "9x4096", "bfloat16", 1.0, 0.8),
        row("train", "Liger, no scores", "9x4096", "bfloat16", 0.9),
        row("train", "hvdfilter", "9x10", "float32", 1.0, 0.1),
        row("train", "Liger, no scores", "9x10", "float32", 1.5),
        row("train", "torch.compile, no scores", "9x4096", "bfloat16", 1.25),
        row("train", "torch, no scores", "9x4096", "bfloat16", 0.1),  # no rival there
    ]
    found = judged(rows)
    bytes_text = "train 9x4096 bfloat16, times the time of its bytes"
    assert found[bytes_text].value == pytest.approx(1.25) and not found[bytes_text].holds
    liger = found["train / Liger, no scores, worst shape and dtype"]
    assert liger.value == pytest.approx(1 / 0.9) and not liger.holds
    compiled = found["train / torch.compile, no scores, worst shape and dtype"]
    assert compiled.value == pytest.approx(0.8) and compiled.holds
    assert len(found) == 3
