"""Distances, sizes, scatters, sums and moves against gradients of each sample by plain autograd."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from hvdfilter.clustering import EpochClusters, GradientClusters
from hvdfilter.clustering.shares import ProductShare
from hvdfilter.world import World
from tests.clustering.oracle import (
    dense_centres,
    epoch,
    flat,
    on_threads,
    own_gradients,
    own_losses,
    slow_scatter,
    step,
)


class Twice(nn.Module):
    """A module called at two lengths, and a weight in two convolutions of unequal strides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 3, 3, padding=1), nn.Conv1d(3, 3, 3, stride=2)
        self.second.weight = self.first.weight
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x).tanh())
        y: Tensor = self.linear(h).tanh()
        return torch.cat([self.linear(y), self.linear(y[:, :1])], dim=1)


# More positions than centres, and fewer: what is kept until the clusters are known differs.
MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 7)), (6,)),
    "sequence": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 4)),
        (9, 6),
    ),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.Conv2d(4, 6, (3, 2), bias=False),
            nn.Flatten(),
            nn.Linear(24, 3),
        ),
        (3, 7, 6),
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding=2),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, groups=6, stride=2),
        ),
        (4, 6, 6),
    ),
    "padding": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
            nn.Tanh(),
            nn.Conv2d(4, 3, 2, padding="same"),
        ),
        (3, 5, 5),
    ),
    "volume": (lambda: nn.Conv3d(2, 4, (2, 3, 2), stride=(1, 2, 1), padding=1), (2, 4, 5, 4)),
    "twice": (Twice, (3, 9)),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even")
@pytest.mark.parametrize("kind", MODELS)
def test_two_epochs_equal_the_plain_rules(kind: str) -> None:
    # The sums are for the inner factors in the second epoch, for the outer ones in the third.
    torch.manual_seed(0)
    make, shape = MODELS[kind]
    model = make().double()
    x = torch.randn(24, *shape, dtype=torch.float64)
    clusters = GradientClusters(model, number=4)
    gradients = flat(own_gradients(model, x), clusters)
    assigned, found = epoch(clusters, x.split(10))
    assert not torch.cat(assigned).any() and found.sizes.tolist() == [24, 0, 0, 0]
    torch.testing.assert_close(found.scatter[0], gradients.square().sum())
    weight = torch.linspace(0.5, 2, 24, dtype=torch.float64)
    for _ in range(2):
        centres = dense_centres(clusters)
        sigma, floor = clusters._centres.sigma.clone(), clusters._centres.floor
        by_inner = clusters._centres.by_inner
        cluster = torch.cat(
            [
                step(clusters, b, weight=w)
                for b, w in zip(x.split(10), weight.split(10), strict=True)
            ]
        )
        distances = (gradients[:, None] - centres).square().sum(dim=2)
        terms = (distances + floor) / sigma + sigma
        assert cluster.tolist() == terms[:, :-1].argmin(dim=1).tolist()
        found = clusters.end_epoch()
        sizes, scatter = slow_scatter(gradients, centres[:-1], cluster)
        assert found.sizes.tolist() == sizes.tolist()
        torch.testing.assert_close(found.scatter, scatter)
        torch.testing.assert_close(found.squares, float(gradients.square().sum()))
        torch.testing.assert_close(
            found.objective, float((sizes * (scatter + floor * sizes)).sqrt().sum())
        )
        if found.exchanged < 0:
            check_move(clusters, gradients, centres, cluster, by_inner)


def check_move(
    clusters: GradientClusters, gradients: Tensor, old: Tensor, cluster: Tensor, by_inner: bool
) -> None:
    """Every new centre is the least-squares one, with the other factor as it was."""
    new, start = dense_centres(clusters), 0
    for share in clusters._shares:
        product = isinstance(share, ProductShare)
        size = share.outputs * share.inputs if product else share.width
        part = slice(start, start + size)
        start += size
        for k in range(clusters.number):
            if not (cluster == k).any():
                torch.testing.assert_close(new[k, part], old[k, part])
                continue
            mean = gradients[cluster == k][:, part].mean(dim=0)
            if product:
                mean, was = (t.view(share.outputs, share.inputs) for t in (mean, old[k, part]))
                # The mean projected on the direction that is held.
                held = torch.linalg.svd(was)[0 if by_inner else 2]
                held = held[:, 0] if by_inner else held[0]
                best = (
                    torch.outer(held, held @ mean) if by_inner else torch.outer(mean @ held, held)
                )
                mean = best.flatten()
            torch.testing.assert_close(new[k, part], mean, rtol=1e-6, atol=1e-9)


def test_the_backward_s_gradients_are_those_of_plain_training() -> None:
    torch.manual_seed(0)
    make, shape = MODELS["conv"]
    model, x = make(), torch.randn(8, *shape)
    clusters = GradientClusters(model, number=3)
    for _ in range(2):
        step(clusters, x)
        ours = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        clusters.end_epoch()
    model.zero_grad()
    own_losses(model(x)).mean().backward()
    for mine, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-5, atol=1e-7)


def test_only_the_named_layers_count() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 6), nn.Linear(6, 3)
    )
    x = torch.randint(0, 5, (16, 3))
    clusters = GradientClusters(model, number=2, layers=["4"])
    for _ in range(2):
        step(clusters, x)
        found = clusters.end_epoch()
    # BatchNorm couples the samples: all of them in one batch, and each one's own loss.
    losses = model(x).sin().sum(dim=1) + model(x).square().mean(dim=1)
    squares = 0.0
    for loss in losses:
        parts = torch.autograd.grad(loss, list(model[4].parameters()), retain_graph=True)
        squares += sum(float(part.square().sum()) for part in parts)
    assert found.squares == pytest.approx(squares, rel=1e-4)


def test_half_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    make, shape = MODELS["conv"]
    model, x = make(), torch.randn(20, *shape)
    clusters = GradientClusters(model, number=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            step(clusters, x)
            found = clusters.end_epoch()
    assert clusters._centres.table is not None
    assert clusters._centres.table.dtype == torch.float32
    gradients = flat(own_gradients(model, x), clusters)
    assert found.squares == pytest.approx(float(gradients.square().sum()), rel=0.1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_agree_with_one_process_on_the_same_data(ranks: int) -> None:
    # From the same centres on: which samples are candidates depends on the ranks.
    torch.manual_seed(0)
    make, shape = MODELS["conv"]
    model = make().double()
    x = torch.randn(25, *shape, dtype=torch.float64)
    first = GradientClusters(model, number=3)
    epoch(first, x.split(8))
    start = first.state_dict()

    def run(world: World, batches: Sequence[Tensor]) -> list[tuple[Tensor, EpochClusters, Tensor]]:
        clusters = GradientClusters(deepcopy(model), number=3, world=world)
        clusters.load_state_dict(start)
        results = []
        for _ in range(3):
            assigned, found = epoch(clusters, batches)
            table = clusters._centres.table
            assert table is not None and found.exchanged < 0  # which would differ
            results.append((torch.cat(assigned), found, table[:-1]))
        return results

    ((*alone,),) = on_threads(1, lambda world: run(world, x.split(8)))
    parts = x.tensor_split(ranks)
    everyone = on_threads(ranks, lambda world: run(world, parts[world.rank].split(3)))
    for turn, (cluster, found, table) in enumerate(alone):
        mine = [results[turn] for results in everyone]
        assert torch.cat([c for c, _, _ in mine]).tolist() == cluster.tolist()
        for _, theirs, other in mine:
            assert torch.equal(other, mine[0][2])
            torch.testing.assert_close(other, table, rtol=1e-9, atol=1e-9)
            assert theirs.sizes.tolist() == found.sizes.tolist()
            torch.testing.assert_close(theirs.scatter, found.scatter)
