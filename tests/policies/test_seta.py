"""SeTa: planted groups of losses, a window that slides over them, a partial annealing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.views import Columns, few, plan, plan_everywhere, some_of

CENTRES = np.array([1, 3, 5, 7, 9, 11, 13, 15, 17, 19]) / 10


def planted(n: int = 1000) -> tuple[Columns, np.ndarray]:
    """Ten groups of losses of equal count, far apart, in random order."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.arange(n) % 10)
    return {"loss": (CENTRES[group] + rng.uniform(-0.02, 0.02, n)).astype(np.float32)}, group


@pytest.mark.parametrize(("scale", "size"), [(0.5, 5), (0.3, 3), (1.0, 10), (0.01, 1)])
def test_the_window_slides_from_easy_to_hard_and_starts_again(scale: float, size: int) -> None:
    columns, group = planted()
    for epoch in range(25):
        first = epoch % (10 - size + 1)
        found = plan_everywhere(make("seta", r=0.2, scale=scale), columns, epoch, 100)
        inside = (group >= first) & (group < first + size)
        assert not found.kept[~inside].any()
        assert found.kept.sum() == round(0.8 * inside.sum())
        assert (found.weight[found.kept] == 1).all() and found.repeats.max() == 1


def test_the_share_inside_is_random() -> None:
    # 400 epochs at one window: counts are Binomial(400, 0.5), 200 +- 10; 54 is over 5 deviations.
    columns, _ = planted(200)
    policy = make("seta", r=0.5, scale=1.0, delta=1.0)
    counts = sum(plan(policy, columns, e, 400).kept.astype(int) for e in range(400))
    assert np.abs(counts - 200).max() < 54


@pytest.mark.parametrize(("epochs", "first"), [(8, 7), (30, 26), (90, 78), (100, 87)])
def test_annealing_takes_a_share_of_everything(epochs: int, first: int) -> None:
    columns, group = planted()
    policy = make("seta", r=0.3, scale=0.2)
    for epoch in range(epochs):
        found = plan(policy, columns, epoch, epochs)
        groups = set(group[found.kept].tolist())
        if epoch >= first:
            assert found.kept.sum() == 700 and len(groups) == 10
        else:
            assert found.kept.sum() == 140 and len(groups) == 2


def test_never_observed_samples_are_in_every_window() -> None:
    columns, _ = planted()
    columns["loss"][:300] = np.inf
    policy = make("seta", r=0.0, scale=0.2)
    for epoch in range(9):
        assert plan(policy, columns, epoch, 90).kept[:300].all()
    nothing = {"loss": np.full(50, np.inf, np.float32)}
    assert plan(make("seta", r=0.1), nothing, 0, 90).kept.sum() == 45


@few
@given(
    some_of(0.0, 0.5, 1.0, 7.0, math.inf),
    st.integers(1, 12),
    st.floats(0.05, 1),
    st.integers(0, 29),
)
def test_any_losses_on_any_number_of_ranks(
    loss: list[float], groups: int, scale: float, epoch: int
) -> None:
    policy = make("seta", r=0.0, groups=groups, scale=scale)
    found = plan_everywhere(policy, {"loss": np.array(loss, np.float32)}, epoch, 30)
    assert found.kept.any()
    # Equal losses have the same fate, and what is kept is a stretch of the sorted ones.
    seen = sorted({x for x in loss if math.isfinite(x)})
    fate = [{bool(k) for k, x in zip(found.kept, loss, strict=True) if x == one} for one in seen]
    assert all(len(one) == 1 for one in fate)
    kept = [i for i, one in enumerate(fate) if True in one]
    assert kept == list(range(kept[0], kept[-1] + 1)) if kept else not seen


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"r": 1.0}, r"policy 'seta': r=1.0 must be a fraction in \[0, 1\)"),
        ({"scale": 0.0}, r"scale=0.0 must be a fraction in \(0, 1\]"),
        ({"delta": -1.0}, r"delta=-1.0 must be a fraction in \[0, 1\]"),
        ({"groups": 0}, r"groups=0 must lie in \[1, 1000\]"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make("seta", **options)
