"""Norms and clusters of per-sample gradients, as a training run notes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hvdfilter.data import augment
from hvdfilter.errors import InputError
from hvdfilter.policies import Plan, Policy, View, make
from hvdfilter.policies.gradient_clustering import GradientClustering
from hvdfilter.training import backward
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch
from hvdfilter.world import current


def trainer(runs: Path, policy: Policy, **options: object) -> Trainer:
    given = {"limit": 48, "batch_size": 48, "epochs": 4, "model": "cnn:4", **options}
    return Trainer(TrainConfig(runs=runs, **given), current(), policy)  # type: ignore[arg-type]


def run(of: Trainer, epochs: int) -> None:
    with Watch() as watch:
        for _ in range(epochs):
            of.run_epoch(watch, lambda *where: None)


def test_grand_notes_the_norm_of_each_samples_own_gradient(tmp_path: Path) -> None:
    of = trainer(tmp_path, make("grand", opening=2))
    whole = []
    for i in range(48):  # one backward a sample, with the weights that the first step sees
        x, y = of.train_set.batch(np.array([i]))
        x = augment(x, torch.tensor([i]), 0, 0, of.train_set.augmentation)
        loss = F.cross_entropy(of.network(x), y)
        parts = torch.autograd.grad(loss, list(of.model.parameters()))
        whole.append(float(torch.cat([part.flatten() for part in parts]).double().norm()))
    run(of, 1)  # of one step
    np.testing.assert_allclose(of.filter.book.column("grand"), whole, rtol=1e-4)


def test_clusters_are_those_that_a_watcher_of_the_same_training_finds(tmp_path: Path) -> None:
    policy = make("gradient-clustering", clusters=3, draws="proportional")
    of = trainer(tmp_path, policy, batch_size=16)
    run(of, 2)
    cluster = of.filter.book.column("cluster")
    assert set(cluster.tolist()) <= {0, 1, 2} and len(set(cluster.tolist())) > 1
    run(of, 1)
    # 48 draws, and in every batch of 16 each cluster's share of them, give or take one a cluster.
    order = of.filter.sampler().drawn(48)
    assert sorted(order.tolist()) == list(range(48))
    strata = of.filter.draws.codes  # type: ignore[union-attr]
    for batch in order.reshape(3, 16):
        counts = np.bincount(strata[batch], minlength=3)
        assert (np.abs(counts - np.bincount(strata, minlength=3) / 3) < 2).all()


def test_a_run_cut_off_after_the_centres_were_made_goes_on_with_them(tmp_path: Path) -> None:
    def of(name: str, resume: bool = False) -> Trainer:
        policy = make("gradient-clustering", clusters=3)
        return trainer(tmp_path, policy, batch_size=16, name=name, resume=resume)

    whole, cut = of("whole"), of("cut")
    run(whole, 4)
    run(cut, 2)
    cut.save()
    cut.saving.settle()
    again = of("cut", resume=True)
    run(again, 2)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@dataclass(frozen=True)
class Strange(GradientClustering):
    name: ClassVar[str] = "strange"
    own_scores: ClassVar[Mapping[str, str]] = {"beauty": "an eye"}

    def plan(self, view: View) -> Plan:
        return view.everything()


def test_what_only_a_script_can_give_is_refused() -> None:
    with pytest.raises(InputError, match="'strange' needs beauty, which only a script.*observe"):
        backward.check(Strange())
    backward.check(make("grand", scores="a file"))
    with pytest.raises(InputError, match="'grand' chooses by gradients.*leave out --shaping"):
        backward.check(make("grand"), shaped=True)


def test_a_model_that_cannot_be_watched_is_refused_by_name(tmp_path: Path) -> None:
    of = trainer(tmp_path, make("grand"), model="resnet9:4")
    with pytest.raises(InputError, match="BatchNorm2d.*couples its samples"):
        run(of, 1)
