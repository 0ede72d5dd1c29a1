"""Ranges open and close with the parts of an epoch; without CUDA there are none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from hvdfilter.costs import Costs
from hvdfilter.telemetry.nvtx import NVTX
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.run_folder import read_metrics
from hvdfilter.training.start import train

CONFIG = {"data": "synthetic:64,1,8,8,4", "epochs": 2, "name": "one"}


def test_without_cuda_a_part_is_not_marked(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    follower = NVTX()
    train(TrainConfig(**CONFIG, runs=tmp_path), followers=[follower])  # type: ignore[arg-type]
    assert Costs.marks == []


def test_parts_are_ranges_inside_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in for the driver's library, which needs a GPU's: it keeps a stack, as that does.
    stack: list[str] = []
    seen: list[tuple[str, ...]] = []

    @contextmanager
    def pushed(name: str) -> Iterator[None]:
        stack.append(name)
        seen.append(tuple(stack))
        yield
        assert stack.pop() == name

    class Here(NVTX):
        def begin(self, run: object, turn: str, epochs: int) -> None:
            with monkeypatch.context() as gpu:
                gpu.setattr(torch.cuda, "is_available", lambda: True)
                super().begin(run, turn, epochs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda.nvtx, "range", pushed)
    train(TrainConfig(**CONFIG, runs=tmp_path), followers=[Here()])  # type: ignore[arg-type]
    assert stack == [] and Costs.marks == []
    assert ("training", "data") in seen and ("evaluation", "data") in seen
    # Every part that was measured was a range ("scoring" is booked, not measured).
    seconds = set(read_metrics(tmp_path / "one")[0]["seconds"]) - {"total", "scoring"}
    assert seconds <= {ranges[-1] for ranges in seen}
