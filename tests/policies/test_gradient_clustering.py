"""Gradient clustering's draws and weights against the rule sample by sample, and their mean."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hvdfilter as hf
from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.views import few, plan, plan_everywhere, some_of


@few
@given(
    some_of(-1, 0, 1, 2, 3, 6),
    st.sampled_from(["equal", "proportional"]),
    st.sampled_from([1.0, 0.6]),
    st.integers(1, 9),
)
def test_every_cluster_gives_its_draws_and_weighs_what_it_is(
    clusters: list[float], draws: str, keep: float, epoch: int
) -> None:
    of = np.array(clusters, np.int32)
    policy = make("gradient-clustering", clusters=7, draws=draws, keep=keep)
    found = plan_everywhere(policy, {"cluster": of}, epoch=epoch, epochs=10)
    sizes, n = Counter(of.tolist()), len(clusters)
    if len(sizes) == 1:  # nothing to tell apart
        assert found.kept.all() and (found.repeats == 1).all() and (found.weight == 1).all()
        return
    total = n if keep == 1 else -(-6 * n // 10)
    each = {
        cluster: max(1, total // len(sizes) if draws == "equal" else size * total // n)
        for cluster, size in sizes.items()
    }
    for cluster, size in sizes.items():
        mine = of == cluster
        assert found.repeats[mine].sum() == each[cluster]
        assert found.repeats[mine].max() - found.repeats[mine].min() <= 1
        drawn = mine & found.kept
        assert len(set(found.strata[drawn].tolist())) == 1
        # A draw's share of the mean, times the draws, is the cluster's share of the set.
        weight = Fraction(size, n) / Fraction(each[cluster], sum(each.values()))
        assert found.weight[drawn] == pytest.approx(float(weight), rel=1e-6)
    assert len({found.strata[of == cluster].max() for cluster in sizes}) >= len(sizes) - 1
    if draws == "proportional" and keep == 1:
        assert (found.repeats == 1).all() and (found.weight == 1).all()


def test_a_batch_of_draws_means_what_the_set_means() -> None:
    # Over many epochs, so that chance has picked every sample of the large cluster.
    of = np.repeat([0, 1, 2], [50, 7, 3]).astype(np.int32)
    values = np.random.default_rng(1).normal(size=60) + 10 * of
    policy, means = make("gradient-clustering", clusters=3, draws="equal"), []
    for epoch in range(300):
        found = plan(policy, {"cluster": of}, epoch, 1000)
        weighed = (found.repeats * found.weight * values).sum() / found.repeats.sum()
        means.append(weighed)
    spread = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - values.mean()) < 4 * spread + 1e-6
    assert np.std(means) < 0.2 * values.std() / np.sqrt(60)


def test_a_filter_deals_the_clusters_in_turn_and_weighs_the_loss() -> None:
    policy = make("gradient-clustering", clusters=2, draws="equal")
    filt = hf.Filter(40, policy, epochs=3)
    filt.begin_epoch(0)
    for ids in torch.tensor(filt.sampler().ids()).split(8):
        loss = filt.loss(torch.zeros(len(ids), 2, requires_grad=True), ids % 2, ids)
        loss.backward()
        filt.observe(ids, cluster=(ids < 4).int())
    filt.begin_epoch(1)
    assert (filt.mask.count, filt.trained) == (24, 40)  # 20 of the 36, and the four five times
    drawn = torch.tensor(filt.sampler().ids())
    assert ((drawn[1:] < 4) != (drawn[:-1] < 4)).all()
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = drawn[:8]
    weight = torch.where(ids < 4, 0.2, 1.8)
    torch.testing.assert_close(filt.weights(ids), weight)
    each = torch.nn.functional.cross_entropy(logits, ids % 2, reduction="none")
    torch.testing.assert_close(filt.loss(logits, ids % 2, ids), (each * weight).mean())


def test_an_epoch_in_turn_is_saved_in_its_middle_and_goes_on() -> None:
    def trained(filt: hf.Filter) -> list[int]:
        order = list(filt.sampler())
        for ids in torch.tensor(order).split(10):
            filt.loss(torch.zeros(len(ids), 3, requires_grad=True), ids % 3, ids).backward()
            filt.observe(ids, cluster=ids % 3 + ids // 30)
        return order

    policy = make("gradient-clustering", clusters=4, draws="equal", keep=0.5)
    filt = hf.Filter(60, policy, epochs=3, seed=4)
    filt.begin_epoch(0)
    trained(filt)
    filt.begin_epoch(1)
    whole = filt.sampler().ids().tolist()
    drawn = iter(filt.sampler())
    head = torch.tensor([next(drawn) for _ in range(10)])
    filt.loss(torch.zeros(10, 3, requires_grad=True), head % 3, head).backward()
    filt.observe(head, cluster=head % 3)
    state = filt.state_dict()
    again = hf.Filter(60, policy, epochs=3, seed=4)
    again.load_state_dict(state)
    again.begin_epoch(1)
    assert again.draws is not None and filt.draws is not None
    assert again.draws.digest == filt.draws.digest
    rest = again.sampler().ids()
    assert rest.tolist() == whole[10:]
    assert again.weights(torch.tensor(rest)).tolist() == filt.weights(torch.tensor(rest)).tolist()


def test_bad_clusters_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="clusters=1 must be at least 2"):
        make("gradient-clustering", clusters=1)
    with pytest.raises(InputError, match="draws='even' must be one of shares"):
        make("gradient-clustering", draws="even")
    of = np.array([0, 1, 5], np.int32)
    with pytest.raises(InputError, match="sample 2 is in cluster 5, of 4: give hf.GradientCl"):
        plan(make("gradient-clustering", clusters=4, draws="equal"), {"cluster": of}, 1, 2)


def test_shares_are_half_by_size_and_half_by_spread() -> None:
    # 90 samples near their centre, 6 and 3 far from theirs, and one that nobody has seen.
    of = np.repeat([0, 1, 2, -1], [90, 6, 3, 1]).astype(np.int32)
    distance = np.repeat([0.01, 4.0, 25.0, np.inf], [90, 6, 3, 1]).astype(np.float32)
    policy = make("gradient-clustering", clusters=3)
    found = plan_everywhere(policy, {"cluster": of, "distance": distance}, epoch=3, epochs=9)
    mean = (90 * 0.01 + 6 * 4 + 3 * 25) / 99
    spread = np.array([90 * 0.1, 6 * 2, 3 * 5, 1 * mean**0.5])
    share = (np.array([90, 6, 3, 1]) / 100 + spread / spread.sum()) / 2
    each = np.maximum(np.floor(100 * share), np.ceil(np.array([90, 6, 3, 1]) / 2)).astype(int)
    assert [int(found.repeats[of == k].sum()) for k in (0, 1, 2, -1)] == each.tolist()
    for k, draws, size in zip((0, 1, 2, -1), each, (90, 6, 3, 1), strict=True):
        weight = size / 100 / (draws / each.sum())
        assert found.weight[(of == k) & found.kept] == pytest.approx(weight, rel=1e-6)
    assert found.weight.max() <= 2 * each.sum() / 100


@few
@given(some_of(-1, 0, 1, 2, 3, 6), st.lists(st.sampled_from([0.0, 0.5, 9.0, 1e6]), min_size=60))
def test_shares_weigh_no_sample_more_than_twice(
    clusters: list[float], distances: list[float]
) -> None:
    of = np.array(clusters * 5, np.int32)
    distance = np.resize(np.array(distances, np.float32), of.size)
    distance[of < 0] = np.inf
    policy = make("gradient-clustering", clusters=7)
    found = plan_everywhere(policy, {"cluster": of, "distance": distance}, epoch=3, epochs=9)
    total = found.repeats.sum()
    sizes = Counter(of.tolist())
    if len(sizes) == 1:
        assert (found.repeats == 1).all()
        return
    for cluster, size in sizes.items():
        draws = int(found.repeats[of == cluster].sum())
        assert 2 * draws >= size
        weight = Fraction(size, of.size) / Fraction(draws, int(total))
        mine = (of == cluster) & found.kept
        assert found.weight[mine] == pytest.approx(float(weight), rel=1e-6)


def batch(filt: hf.Filter, ids: torch.Tensor) -> None:
    filt.loss(torch.zeros(len(ids), 2, requires_grad=True), ids % 2, ids).backward()


def test_a_batch_that_nobody_clustered_is_named_at_the_next_step() -> None:
    filt = hf.Filter(8, make("gradient-clustering", draws="equal"), epochs=2)
    filt.begin_epoch(0)
    batch(filt, torch.arange(4))
    said = r"needs cluster of every sample.*filt.observe\(ids, cluster=...\).*hf.GradientClusters"
    with pytest.raises(InputError, match=said):
        batch(filt, torch.arange(4, 8))
    filt = hf.Filter(8, make("gradient-clustering", draws="equal"), epochs=2)
    filt.begin_epoch(0)
    batch(filt, torch.arange(8))
    with pytest.raises(InputError, match=said):
        filt.end_epoch()


def test_what_is_observed_must_be_of_the_last_batch() -> None:
    filt = hf.Filter(8, make("gradient-clustering", draws="equal"), epochs=2)
    filt.begin_epoch(0)
    with pytest.raises(InputError, match="call it once after each filt.loss"):
        filt.observe(torch.arange(4), cluster=torch.zeros(4))
    batch(filt, torch.arange(4))
    with pytest.raises(InputError, match="not those of the batch trained last"):
        filt.observe(torch.arange(4, 8), cluster=torch.zeros(4))
    batch(filt, torch.arange(4))
    with pytest.raises(InputError, match="unknown score 'clusters': did you mean 'cluster'"):
        filt.observe(torch.arange(4), clusters=torch.zeros(4))
