"""The objective's pieces against plain loops: bounds, shares of the draws, exchanges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.clustering.picks import apart
from hvdfilter.clustering.spread import Tally, costs, objective, shares, spreads

FLOOR = 1e-6


def draw(seed: int, samples: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances to all centres [B, M + 1] and squared lengths [B], of any sizes."""
    make = torch.Generator().manual_seed(seed)
    points = torch.randn(samples, 3, generator=make, dtype=torch.float64).mul(2).exp()
    centres = torch.randn(number + 1, 3, generator=make, dtype=torch.float64).exp()
    return (points[:, None] - centres).square().sum(2), points.square().sum(1)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), samples=st.integers(1, 30), number=st.integers(1, 5))
def test_to_exchange_never_leaves_a_higher_objective_than_to_stay(
    seed: int, samples: int, number: int
) -> None:
    distances, squares = draw(seed, samples, number)
    sigma = torch.rand(number + 1, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    terms = costs(distances, sigma, FLOOR)
    cluster = terms[:, :-1].argmin(dim=1)
    tally = Tally.unpack(Tally.of(squares, distances, terms, cluster), number)
    for k in range(number):
        own = [i for i in range(samples) if cluster[i] == k]
        assert tally.sizes[k] == len(own)
        assert float(tally.scatter[k]) == pytest.approx(sum(float(distances[i, k]) for i in own))
    assert float(tally.squares) == pytest.approx(float(squares.sum()))
    given_up = tally.exchange(torch.zeros(number), FLOOR)
    if given_up < 0:
        return
    # The centre on trial in the place of the one given up, and every sample where it is cheapest.
    kept = [k for k in range(number + 1) if k != given_up]
    best = terms[:, kept].argmin(dim=1)
    sizes = torch.bincount(best, minlength=number).double()
    scatter = torch.stack([distances[best == j, k].sum() for j, k in enumerate(kept)])
    assert objective(sizes, scatter, FLOOR) <= objective(tally.sizes, tally.scatter, FLOOR)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), samples=st.integers(1, 30), number=st.integers(1, 5))
def test_costs_bound_the_objective_and_meet_it_at_the_clusters_own_spread(
    seed: int, samples: int, number: int
) -> None:
    distances, _ = draw(seed, samples, number)
    make = torch.Generator().manual_seed(seed)
    cluster = torch.randint(number, (samples,), generator=make)
    sizes = torch.bincount(cluster, minlength=number).double()
    scatter = torch.stack([distances[cluster == k, k].sum() for k in range(number)])
    phi = sum(
        math.sqrt(n * (s + FLOOR * n))
        for n, s in zip(sizes.tolist(), scatter.tolist(), strict=True)
    )
    assert objective(sizes, scatter, FLOOR) == pytest.approx(phi)
    anything = torch.rand(number + 1, generator=make).double() + 0.01
    tight = torch.cat((spreads(sizes, scatter, FLOOR, anything[:-1]), anything[-1:]))
    for sigma, near in ((anything, False), (tight, True)):
        bound = sum(float(costs(distances, sigma, FLOOR)[i, cluster[i]]) for i in range(samples))
        assert bound / 2 >= phi * (1 - 1e-12)
        assert not near or bound / 2 == pytest.approx(phi)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), samples=st.integers(2, 40), number=st.integers(1, 5))
def test_draws_by_shares_are_unbiased_and_at_most_twice_as_noisy_whatever_came_of_the_samples(
    seed: int, samples: int, number: int
) -> None:
    make = torch.Generator().manual_seed(seed)
    cluster = torch.randint(number, (samples,), generator=make)
    sizes = torch.bincount(cluster, minlength=number).double()
    told = shares(sizes, torch.rand(number, generator=make).double().pow(8) * sizes)
    assert float(told.sum()) == pytest.approx(1) and not told[sizes == 0].any()
    # Gradients that have nothing to do with the scatters that were told.
    now = torch.randn(samples, 3, generator=make, dtype=torch.float64)
    now = now * torch.randn(samples, 1, generator=make).mul(3).exp()
    mean, variance = torch.zeros(3, dtype=torch.float64), 0.0
    for k in range(number):
        rows = now[cluster == k]
        if len(rows):
            weight = len(rows) / samples / float(told[k])
            mean += float(told[k]) * weight * rows.mean(dim=0)
            noise = float((rows - rows.mean(dim=0)).square().sum()) / len(rows)
            variance += float(told[k]) * weight**2 * noise
    torch.testing.assert_close(mean, now.mean(dim=0))
    uniform = float((now - now.mean(dim=0)).square().sum()) / samples
    assert variance <= 2 * uniform * (1 + 1e-9)


def test_the_first_centres_are_apart() -> None:
    # Four tight groups of very unequal sizes: one of each, whatever the seed.
    place = torch.tensor([0.0] * 40 + [10.0] * 3 + [20.0] * 2 + [30.0])
    distances = (place[:, None] - place).square()
    for seed in range(20):
        chosen = place[apart(distances, 4, seed)]
        assert sorted(chosen.tolist()) == [0.0, 10.0, 20.0, 30.0]
    assert len(apart(torch.zeros(3, 3), 2, 0)) == 2  # all alike
