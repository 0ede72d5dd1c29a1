"""Each score of the features against a plain loop, on 1 to 4 ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Collective
from hvdfilter.agreement.solo import SoloCollective
from hvdfilter.features import density, reconstruction, standard
from tests.features.cases import on_ranks

SHAPES = st.tuples(st.integers(2, 60), st.integers(1, 9))


def random_features(seed: int, n: int, d: int) -> np.ndarray:
    """Features of very different sizes that hang together, as those of a network do."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return (mixed * 10.0 ** rng.integers(-2, 3, d) + rng.normal(size=d)).astype(np.float32)


def plain_standard(features: np.ndarray) -> np.ndarray:
    columns = []
    for column in features.astype(np.float64).T:
        spread = np.sqrt(np.mean((column - column.mean()) ** 2))
        columns.append((column - column.mean()) / spread)
    return np.stack(columns, 1)


def scaled(part: torch.Tensor, ids: np.ndarray, collective: Collective) -> np.ndarray:
    return standard.standardise(part.clone(), collective).numpy()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), shape=SHAPES)
def test_features_have_mean_0_and_variance_1_over_all_ranks(
    seed: int, shape: tuple[int, int]
) -> None:
    features = random_features(seed, *shape)
    for ranks in range(1, 5):
        found = on_ranks(ranks, features, scaled, seed)
        np.testing.assert_allclose(found, plain_standard(features), rtol=1e-5, atol=1e-5)


def test_a_constant_feature_says_nothing() -> None:
    # 0.1 is no float32: a spread of its own rounding must not become a variance of 1.
    features = np.full((5001, 3), 0.1, np.float32)  # more rows than are taken at once
    features[:, 1] = np.arange(5001)
    features[:, 2] = 1e6
    found = on_ranks(2, features, scaled)
    assert not found[:, [0, 2]].any()
    assert found[:, 1].std() == pytest.approx(1)


def errors(part: torch.Tensor, ids: np.ndarray, collective: Collective) -> np.ndarray:
    return reconstruction.reconstruction_error(
        standard.standardise(part.clone(), collective), collective
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), shape=SHAPES)
def test_the_error_is_what_the_smallest_sufficient_pca_leaves(
    seed: int, shape: tuple[int, int]
) -> None:
    features = random_features(seed, *shape)
    x = plain_standard(features)
    _, singular, directions = np.linalg.svd(x, full_matrices=False)
    shares = np.cumsum(singular**2) / np.sum(singular**2)
    size = next(k for k in range(1, len(shares) + 1) if shares[k - 1] >= 0.9 - 1e-9)
    expected = []
    for row in x:
        left = row.copy()
        for direction in directions[:size]:
            left -= (row @ direction) * direction
        expected.append(np.sqrt(left @ left))
    for ranks in range(1, 5):
        found = on_ranks(ranks, features, errors, seed)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_no_trained_auto_encoder_of_the_same_size_has_a_smaller_error() -> None:
    # The bound of the closed form, from the other side: gradient descent comes near it from above.
    x = standard.standardise(
        torch.from_numpy(random_features(1, 80, 6)), collective := SoloCollective()
    )
    code = reconstruction.encoder(x, collective, share=0.6)
    least = float(reconstruction_loss(x.double(), code.T, code))
    torch.manual_seed(0)
    down, up = (torch.randn(*shape, dtype=torch.float64) for shape in (code.T.shape, code.shape))
    down, up = (0.3 * down).requires_grad_(), (0.3 * up).requires_grad_()
    optimizer = torch.optim.Adam([down, up], lr=0.02)
    seen = []
    for _ in range(600):
        optimizer.zero_grad()
        loss = reconstruction_loss(x.double(), down, up)
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert 1 <= code.shape[1] < 6
    assert min(seen) >= least * (1 - 1e-9)
    assert seen[-1] == pytest.approx(least, rel=0.02)


def reconstruction_loss(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return (x - (x @ down.T) @ up.T).square().sum(1).mean()


def distances(part: torch.Tensor, ids: np.ndarray, collective: Collective) -> np.ndarray:
    width = int(collective.allreduce(np.array([part.shape[1]]), "max")[0])
    part = part if len(part) else torch.empty(0, width)
    return density.neighbour_distance(part, ids, 3, collective)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), shape=SHAPES)
def test_the_density_is_the_distance_to_the_kth_other_landmark(
    seed: int, shape: tuple[int, int]
) -> None:
    features = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    features[: shape[0] // 3] = features[0]  # equal samples: a distance of 0
    n = shape[0]  # fewer than there may be landmarks: all of them are
    k = min(density.NEIGHBOUR, n - 1)
    expected = []
    for i in range(n):
        others = [np.linalg.norm(features[i].astype(float) - features[j]) for j in range(n)]
        del others[i]
        expected.append(sorted(others)[k - 1])
    for ranks in range(1, 5):
        found = on_ranks(ranks, features, distances, seed)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_more_samples_than_landmarks_are_held_against_the_same_ones_on_any_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(density, "LANDMARKS", 20)
    features = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    alone = on_ranks(1, features, distances)
    assert len(set(alone.tolist())) == 90
    # 20 of 90 of them: sparser than all, and the same ones wherever the samples lie.
    for ranks in (2, 3, 4):
        np.testing.assert_allclose(on_ranks(ranks, features, distances, ranks), alone, rtol=1e-6)
    x = features.astype(float)
    table = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(table, np.inf)
    nearest_of_all = np.sort(table, axis=1)[:, density.NEIGHBOUR - 1]
    assert (alone >= nearest_of_all * (1 - 1e-6)).all() and (alone > nearest_of_all).sum() > 60


def test_a_sample_alone_has_no_neighbour() -> None:
    assert on_ranks(1, np.ones((1, 3), np.float32), distances) == 0
