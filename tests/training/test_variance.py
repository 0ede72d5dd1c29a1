"""Moments against numpy's, and an epoch's measured variance against explicit gradients."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hvdfilter.data import augment
from hvdfilter.errors import InputError
from hvdfilter.policies import make
from hvdfilter.report.variance import draw, variance_of, variance_tables
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.moments import Moments
from hvdfilter.training.preemption import Watch
from hvdfilter.training.start import train
from hvdfilter.world import current


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 99), st.sampled_from([0.0, 100.0]))
def test_moments_are_those_of_all_values_at_once(count: int, d: int, seed: int, far: float) -> None:
    values = np.random.default_rng(seed).normal(far, 1, (count, d))
    values[:, 0] = 0  # a coordinate that says nothing
    moments = Moments()
    for value in values:
        moments.add(torch.tensor(value))
    np.testing.assert_allclose(moments.mean, values.mean(0), atol=1e-12)
    assert moments.variance == pytest.approx(values.var(0, ddof=1).mean(), rel=1e-9)
    if d > 1:
        shares = values.var(0, ddof=1)[1:] / np.square(values).mean(0)[1:]
        assert moments.normalised == pytest.approx(shares.mean(), rel=1e-9)
    else:
        assert math.isnan(moments.normalised)


def test_one_value_varies_by_nobody_knows_what() -> None:
    moments = Moments()
    moments.add(torch.ones(3))
    assert math.isnan(moments.variance) and math.isnan(moments.normalised)


def config(runs: Path, **options: object) -> TrainConfig:
    given = {"limit": 200, "batch_size": 16, "epochs": 2, "variance": 5, "policy": "infobatch"}
    return TrainConfig(runs=runs, **{**given, **options})  # type: ignore[arg-type]


def test_what_an_epoch_measures_is_the_variance_of_its_batches(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, epochs=4), current(), make("infobatch"))
    with Watch() as watch:
        for _ in range(2):  # the second hides half of the easy samples
            record = trainer.run_epoch(watch, lambda *where: None)
    order = trainer.filter.sampler().drawn(80)
    weights = trainer.filter.weights(torch.from_numpy(order))
    assert weights is not None and weights.max() > 1  # of kept samples that stand for others
    gradients = []
    for start in range(0, 80, 16):
        ids = order[start : start + 16]
        x, y = trainer.train_set.batch(ids)
        ids = torch.from_numpy(ids)
        x = augment(x, ids, 1, 0, trainer.train_set.augmentation)
        each = F.cross_entropy(trainer.network(x), y, reduction="none")
        loss = (each * weights[start : start + 16]).mean()
        parts = torch.autograd.grad(loss, list(trainer.model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]).double().numpy())
    found = record["variance"]["policy"]
    assert found["batches"] == 5
    assert found["variance"] == pytest.approx(np.var(gradients, axis=0, ddof=1).mean(), rel=1e-4)
    assert record["variance"]["uniform"]["variance"] != found["variance"]


def test_measuring_changes_nothing_of_the_training(tmp_path: Path) -> None:
    # ResNet-9 has BatchNorm, whose statistics a careless measurement would move.
    runs = {
        measured: train(config(tmp_path, variance=measured, model="resnet9:4", limit=64))
        for measured in (0, 3)
    }
    plain, measured = (runs[number].last for number in (0, 3))
    assert plain["train_loss"] == measured["train_loss"]
    assert plain["test_loss"] == measured["test_loss"]
    assert plain["mask_digest"] == measured["mask_digest"]
    with pytest.raises(InputError, match="measured no variance: train with --variance"):
        variance_of([runs[3].folder, runs[0].folder])
    variance_tables(variance_of([runs[3].folder]))
    draw(variance_of([runs[3].folder]), tmp_path / "variance.png")
    assert (tmp_path / "variance.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variance": 1}, "variance=1 must be 0, or at least 2"),
        ({"batch_size": 150}, "needs two whole batches an epoch.*of 150 samples on 1 ranks"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, options: dict[str, int], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(config(tmp_path, **options))
