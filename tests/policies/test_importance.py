"""Importance sampling against the draws made one by one, its switch, and its mean."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.agreement import random
from hvdfilter.errors import InputError
from hvdfilter.policies import Policy, make
from tests.policies.views import Columns, few, plan, plan_everywhere, some_of


def norms(n: int, seed: int = 0, unseen: float = 0.1) -> Columns:
    """Few large and many small gradient norms, some of them 0, some never observed."""
    rng = np.random.default_rng(seed)
    norm = np.where(rng.uniform(size=n) < 0.1, rng.uniform(0.5, 1.4, n), 0.01 * rng.uniform(size=n))
    norm[rng.uniform(size=n) < 0.05] = 0
    norm[rng.uniform(size=n) < unseen] = np.inf
    return {"grad_norm": norm.astype(np.float32)}


def sharp(keep: float = 0.7, floor: float = 0.1) -> Policy:
    """The policy with its switch at a fall of 1.01, which the norms above exceed."""
    return make("importance", keep=keep, batch=100, presample=3, floor=floor)


def shares_by_hand(norm: list[float], floor: float = 0.1) -> list[int]:
    seen = [x for x in norm if math.isfinite(x)]
    share = [max(1, round(Fraction(x) / Fraction(max(seen)) * 2**24)) for x in seen]
    mean = round(sum(share) / len(share))
    left = iter(share)
    least = math.ceil(floor * mean)
    return [max(least, next(left) if math.isfinite(x) else mean) for x in norm]


def draws_by_hand(share: list[int], draws: int, seed: int, epoch: int) -> list[int]:
    """One draw after the other, its place exact, its sample by walking along the shares."""
    total = sum(share)
    counts = [0] * len(share)
    for j in range(draws):
        u = Fraction(float(random.uniform01(seed, epoch, np.array([j]))[0]))
        place = math.floor((j + u) * total / draws)
        i = 0
        while place >= share[i]:
            place -= share[i]
            i += 1
        counts[i] += 1
    return counts


@pytest.mark.parametrize("n", [12, 100, 501])
@pytest.mark.parametrize(("keep", "floor"), [(0.3, 0.0), (1.0, 0.1)])
def test_draws_and_weights_are_those_made_one_by_one(n: int, keep: float, floor: float) -> None:
    columns = norms(n, seed=n)
    found = plan_everywhere(sharp(keep, floor), columns, epoch=4, epochs=10, seed=3)
    share = shares_by_hand(columns["grad_norm"].tolist(), floor)
    counts = draws_by_hand(share, math.ceil(round(keep * n, 6)), seed=3, epoch=4)
    assert found.repeats.tolist() == counts
    for i in range(n):
        weight = Fraction(sum(share), n * share[i]) if counts[i] else 0
        assert found.weight[i] == pytest.approx(float(weight), rel=2e-7)


@few
@given(
    some_of(0.0, 1e-30, 0.001, 0.5, 1.4, math.inf),
    st.floats(0.05, 1),
    st.integers(0, 9),
)
def test_any_norms_on_any_number_of_ranks(norm: list[float], keep: float, epoch: int) -> None:
    found = plan_everywhere(
        sharp(keep), {"grad_norm": np.array(norm, np.float32)}, epoch=epoch, epochs=10
    )
    n = len(norm)
    if (found.weight == 1).all() and found.kept.all():
        return  # not switched on
    draws = max(1, n - math.floor((1 - keep) * n + 1e-6))
    assert found.repeats.sum() == draws
    share = shares_by_hand(norm)
    for i, count in enumerate(found.repeats):
        assert abs(count - draws * share[i] / sum(share)) < 2


def gain_by_hand(norm: np.ndarray) -> float:
    """The criterion as the paper writes it."""
    p = norm / norm.sum()
    u = np.full(norm.size, 1 / norm.size)
    return float(1 / np.sqrt(1 - ((p - u) ** 2).sum() / (p**2).sum()))


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_it_starts_when_the_variance_falls_enough(spread: float) -> None:
    norm = np.random.default_rng(0).lognormal(0, spread, 2000)
    gain = gain_by_hand(norm)
    columns = {"grad_norm": norm.astype(np.float32)}
    for presample, batch in ((0, 1), (64, 128), (640, 128), (1000, 100)):
        threshold = (presample + 3 * batch) / (3 * batch)
        assert abs(gain / threshold - 1) > 1e-4  # else rounding might decide
        policy = make("importance", presample=presample, batch=batch, floor=0.0)
        found = plan_everywhere(policy, columns, 1, 10)
        everything = bool(found.kept.all() and (found.weight == 1).all())
        assert everything == (gain <= threshold)


@pytest.mark.parametrize("value", [np.inf, 0.0])
def test_nothing_known_or_no_gradient_trains_everything(value: float) -> None:
    found = plan_everywhere(sharp(), {"grad_norm": np.full(30, value, np.float32)}, 0, 10)
    assert found.kept.all() and (found.weight == 1).all() and (found.repeats == 1).all()


def test_never_observed_samples_are_drawn_like_the_mean() -> None:
    # 500 plans of 140 draws: such a sample's count is stratified, its deviation below 0.5 a plan
    # and so below 0.03 for the mean of 500; 0.15 is five of these.
    columns = norms(200, unseen=0.0)
    columns["grad_norm"][7] = np.inf
    counts = [plan(sharp(), columns, 0, 10, seed=seed).repeats[7] for seed in range(500)]
    assert np.mean(counts) == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("keep", [0.3, 1.0])
def test_the_mean_over_draws_is_unbiased(keep: float) -> None:
    # 1,000 seeds: within 4 standard errors except once in 16,000 tests. Values that rise with the
    # norm, so that unweighted draws are far off.
    columns = norms(300)
    norm = columns["grad_norm"]
    values = np.where(np.isfinite(norm), 1 + norm, 3.0)
    means = []
    for seed in range(1000):
        found = plan(sharp(keep), columns, 1, 10, seed=seed)
        assert found.weight.max() <= 11  # (1 + floor) / floor
        means.append((found.weight * found.repeats * values).sum() / found.repeats.sum())
    error = np.std(means, ddof=1) / math.sqrt(len(means))
    assert 0 < error < 0.02
    assert abs(np.mean(means) - values.mean()) < 4 * error


def test_every_sample_is_drawn_as_often_as_its_share_says() -> None:
    # Exactly in expectation; over 1,000 plans each count's mean is within 5 standard errors (once
    # in 15,000 tests over 40 samples), even for the samples of norm 0, whose share is 1 in 2^24.
    columns = norms(40, seed=5, unseen=0.0)
    share = np.array(shares_by_hand(columns["grad_norm"].tolist(), floor=0.0))
    counts = np.array([plan(sharp(floor=0.0), columns, 2, 9, seed=s).repeats for s in range(1000)])
    expected = 28 * share / share.sum()
    error = np.maximum(counts.std(axis=0), np.sqrt(expected)) / math.sqrt(1000)
    assert (np.abs(counts.mean(axis=0) - expected) <= 5 * error + 1e-12).all()


def test_places_are_exact_for_sums_beyond_2_to_the_53() -> None:
    # 2^37 samples of 2^24: what a rank in the middle of such a set computes for its own draws.
    from hvdfilter.policies.importance import drawn
    from tests.policies.views import view_of

    n, draws = 8, 3 << 35
    share = np.full(n, 1 << 24, np.int64)
    total, start = (1 << 61) + 12345, (1 << 60) + 777
    view = view_of({"grad_norm": np.zeros(n, np.float32)}, 0, 1)
    object.__setattr__(view, "before", lambda values: values * 0 + start)
    counts = drawn(share, total, draws, view)
    by_hand = [0] * n
    for j in range(start * draws // total - 3, (start + n * 2**24) * draws // total + 3):
        u = Fraction(float(random.uniform01(0, 0, np.array([j]))[0]))
        place = math.floor((j + u) * total / draws) - start
        if 0 <= place < n << 24:
            by_hand[place >> 24] += 1
    assert counts.tolist() == by_hand
    assert sum(by_hand) > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": 0.0}, r"policy 'importance': keep=0.0 must be a fraction in \(0, 1\]"),
        ({"floor": -0.5}, r"floor=-0.5 must be a fraction in \[0, 1\]"),
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"presample": -1}, "presample=-1 at least 0"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make("importance", **options)
