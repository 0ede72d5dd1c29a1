"""RS2: stretches of permutations laid end to end, drawn from a list of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.views import few, plan, plan_everywhere

# n = 70,000 is above the size up to which the permutation is a sorted table.
SIZES = [(10, 0.3), (100, 0.7), (1000, 0.1), (17, 1.0), (70_000, 0.45)]


@pytest.mark.parametrize(("n", "keep"), SIZES)
def test_counts_never_differ_by_more_than_one(n: int, keep: float) -> None:
    counts = np.zeros(n, np.int64)
    for epoch in range(12):
        found = plan(make("rs2", keep=keep), {}, epoch, 12, num_samples=n)
        assert found.repeats.sum() == round(keep * n)  # the same number of draws each epoch
        assert (found.weight[found.kept] == 1).all()
        counts += found.repeats
        assert counts.max() - counts.min() <= 1


@few
@given(st.integers(1, 60), st.floats(0.02, 1), st.integers(0, 40), st.integers(0, 3))
def test_the_same_on_any_number_of_ranks(n: int, keep: float, epoch: int, seed: int) -> None:
    found = plan_everywhere(make("rs2", keep=keep), {}, epoch, 50, seed=seed, num_samples=n)
    assert 0 < found.repeats.sum() <= n and found.repeats.max() <= 2


def test_a_stretch_goes_on_in_the_next_permutation() -> None:
    # 7 draws of 10: the first epoch is places 0-6, the second 7-9 and the head 0-3 of the next.
    first, second = (plan(make("rs2"), {}, e, 9, num_samples=10).repeats for e in (0, 1))
    rest = first == 0
    assert (first <= 1).all() and rest.sum() == 3
    assert (second[rest] >= 1).all() and second.sum() == 7


def test_permutations_are_fresh_and_of_the_seed() -> None:
    policy = make("rs2", keep=0.5)
    rounds = [plan(policy, {}, e, 90, num_samples=400).kept for e in range(0, 20, 2)]
    for i, one in enumerate(rounds):
        for other in rounds[:i]:  # 200 of 400: the overlap is hypergeometric, 100 +- 5
            assert 65 < (one & other).sum() < 135
    seeded = plan(policy, {}, 0, 90, num_samples=400, seed=1).kept
    assert 65 < (rounds[0] & seeded).sum() < 135


def test_the_share_is_a_fraction() -> None:
    with pytest.raises(InputError, match=r"policy 'rs2': keep=0.0 must be a fraction in \(0, 1\]"):
        make("rs2", keep=0.0)
