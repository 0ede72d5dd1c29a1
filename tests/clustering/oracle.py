"""Per-sample gradients by one backward a sample, centres written out, and the rules in loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from hvdfilter.clustering import EpochClusters, GradientClusters
from hvdfilter.clustering.shares import ProductShare
from hvdfilter.world import World
from tests.agreement.worlds import ThreadCollective, run_world


def own_losses(outputs: Tensor) -> Tensor:
    """A loss of each sample alone, [B], curved so that no gradient is constant."""
    return outputs.flatten(1).sin().sum(dim=1) + outputs.flatten(1).square().mean(dim=1)


def own_gradients(
    model: nn.Module, x: Tensor, losses: Callable[[Tensor], Tensor] = own_losses
) -> dict[str, Tensor]:
    """[B, ...] of every trainable parameter, by its name."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    each: dict[str, list[Tensor]] = {name: [] for name in named}
    for i in range(len(x)):
        found = torch.autograd.grad(losses(model(x[i : i + 1]))[0], list(named.values()))
        for name, gradient in zip(named, found, strict=True):
            each[name].append(gradient)
    return {name: torch.stack(rows) for name, rows in each.items()}


def flat(gradients: dict[str, Tensor], clusters: GradientClusters) -> Tensor:
    """[B, D] of the clustered parameters, side by side."""
    return torch.cat([gradients[share.name].flatten(1) for share in clusters._shares], dim=1)


def dense_centres(clusters: GradientClusters) -> Tensor:
    """[M + 1, D]: outer products written out; the last is on trial."""
    table = clusters._centres.table
    assert table is not None
    parts = []
    for share in clusters._shares:
        rows = table[:, share.columns]
        if isinstance(share, ProductShare):
            rows = torch.stack(
                [torch.outer(r[: share.outputs], r[share.outputs :]).flatten() for r in rows]
            )
        parts.append(rows)
    return torch.cat(parts, dim=1)


def slow_scatter(gradients: Tensor, centres: Tensor, cluster: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes and sums of squared distances, sample by sample."""
    sizes, scatter = (torch.zeros(len(centres), dtype=torch.float64) for _ in range(2))
    for gradient, k in zip(gradients, cluster.tolist(), strict=True):
        sizes[k] += 1
        scatter[k] += (gradient.double() - centres[k].double()).square().sum()
    return sizes, scatter


def step(
    clusters: GradientClusters,
    x: Tensor,
    losses: Callable[[Tensor], Tensor] = own_losses,
    weight: Tensor | None = None,
) -> Tensor:
    """One backward and the clusters of its samples."""
    own = torch.ones(len(x)) if weight is None else weight
    clusters.model.zero_grad()
    with clusters:
        ((own * losses(clusters.model(x))).sum() / len(x)).backward()
    return clusters.assign(weight)


def epoch(
    clusters: GradientClusters, batches: Iterable[Tensor]
) -> tuple[list[Tensor], EpochClusters]:
    """One epoch over these batches with the model as it is."""
    assigned = [step(clusters, x) for x in batches]
    return assigned, clusters.end_epoch()


def on_threads(size: int, body: Callable[[World], object]) -> list:
    """What `body` returned on each rank of a world of threads."""

    def rank(collective: ThreadCollective) -> object:
        return body(World(collective.rank, size, 0, torch.device("cpu"), collective))

    return run_world(size, rank)


def told_by(world: World, path: str) -> tuple[list[int], list[tuple[list[int], str, int]]]:
    """Three epochs over this rank's part of 30 images: last clusters, and what the ranks are told.

    From the state at `path`; a world of one makes it first if it is not there.
    """
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    model = nn.Sequential(*layers).double()
    x = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    clusters = GradientClusters(model, number=4, seed=1, world=world)
    if not Path(path).exists():
        epoch(clusters, x.split(10))
        torch.save(clusters.state_dict(), path)
    clusters.load_state_dict(torch.load(path, weights_only=True))
    told = []
    for _ in range(3):
        assigned, found = epoch(clusters, x.tensor_split(world.size)[world.rank].split(4))
        told.append((found.sizes.tolist(), f"{found.objective:.9e}", found.exchanged))
    return torch.cat(assigned).tolist(), told
