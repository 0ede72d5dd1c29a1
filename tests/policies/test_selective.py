"""Selective-Backprop against the probability of each sample counted over all others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.agreement import random
from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.views import few, losses, plan, plan_everywhere, some_of


def share_by_hand(loss: list[float], i: int, beta: float, least: float) -> float:
    seen = [x for x in loss if math.isfinite(x)]
    if not math.isfinite(loss[i]):
        return 1.0
    return max(least, (sum(x <= loss[i] for x in seen) / len(seen)) ** beta)


@few
@given(
    some_of(0.25, 0.5, 0.75, 1.0, math.inf),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 9),
)
def test_every_sample_is_kept_by_its_own_coin(
    loss: list[float], beta: float, least: float, epoch: int
) -> None:
    n = len(loss)
    columns = {"loss": np.array(loss, np.float32), "age": np.ones(n, np.int16)}
    policy = make("selective-backprop", beta=beta, sampling_min=least)
    found = plan_everywhere(policy, columns, epoch, 10, seed=5)
    coins = random.uniform01(5, epoch, np.arange(n))
    for i in range(n):
        assert found.kept[i] == (coins[i] < share_by_hand(loss, i, beta, least))
    assert (found.weight[found.kept] == 1).all()


@pytest.mark.parametrize(("beta", "share"), [(0.0, 1), (1.0, 1 / 2), (2.0, 1 / 3), (3.0, 1 / 4)])
def test_it_keeps_one_in_one_plus_beta(beta: float, share: float) -> None:
    # 20,000 coins: the deviation of the share is at most 0.0036; 0.015 is four of these.
    columns = {**losses(20_000, unseen=0, ties=None), "age": np.ones(20_000, np.int16)}
    found = plan(make("selective-backprop", beta=beta), columns, 3, 10)
    assert found.kept.mean() == pytest.approx(share, abs=0.015)
    assert found.kept[np.argmax(columns["loss"])]


def test_what_the_last_epoch_did_not_look_at_is_kept() -> None:
    columns = {**losses(300, unseen=0), "age": np.ones(300, np.int16)}
    columns["age"][:40], columns["age"][40:80] = 2, -1
    columns["loss"][40:80] = np.inf
    assert not plan(make("selective-backprop", beta=9.0), columns, 3, 10).kept[80:].all()
    assert plan(make("selective-backprop", beta=9.0), columns, 3, 10).kept[:80].all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beta": -1.0}, "policy 'selective-backprop': beta=-1.0 must be a finite number"),
        ({"beta": math.inf}, "beta=inf must be a finite number"),
        ({"sampling_min": 1.5}, r"sampling_min=1.5 must be a fraction in \[0, 1\]"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make("selective-backprop", **options)
