"""A policy's weights and repeats reach whoever draws a sample, and enter the loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import hvdfilter as hf
from hvdfilter.agreement import Blocks, Collective, KeepMask, merge, merge_draws
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.filter.weights import Weights
from hvdfilter.policies import Plan, Policy, View
from tests.agreement.worlds import run_world

# None, one kind, a few, and more kinds than travel as a code.
KINDS = [0, 1, 3, 5000]


def weights_by_hand(n: int, kinds: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=max(1, kinds)).astype(np.float32)
    return values[rng.integers(0, values.size, n)]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(8, 700),
    size=st.integers(1, 4),
    later=st.integers(1, 4),
    most=st.integers(1, 5),
    kinds=st.sampled_from(KINDS[1:]),
    steps=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_every_draw_on_any_rank_has_its_weight_before_and_after_a_change_of_ranks(
    n: int, size: int, later: int, most: int, kinds: int, steps: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    repeats = rng.integers(0, most + 1, n)
    repeats[0] = 1
    weight = weights_by_hand(n, kinds, seed)

    def world(ranks: int, offset: int) -> list[list[tuple[int, float]]]:
        blocks = Blocks(n, ranks)

        def rank(collective: Collective) -> list[tuple[int, float]]:
            mine = slice(blocks.start(collective.rank), blocks.stop(collective.rank))
            if most == 1:
                mask: Any = merge(repeats[mine] > 0, blocks, collective)
            else:
                mask = merge_draws(repeats[mine], blocks, collective)
            sampler = ShardSampler(mask, collective.rank, ranks, seed)
            sampler.set_epoch(3)
            sampler.load_state_dict(sampler.state_dict() | {"offset": offset})
            weights = Weights(blocks, collective)
            weights.deliver(weight[mine], sampler)
            ids = torch.from_numpy(sampler.ids())
            found, unknown = weights.of(ids)
            assert unknown is None or not unknown.any()
            values = torch.ones(len(ids)) if found is None else found
            return list(zip(ids.tolist(), values.tolist(), strict=True))

        return run_world(ranks, rank)

    drawn = world(size, 0)
    assert all(value == weight[sample] for rank in drawn for sample, value in rank)
    counts = Counter(sample for rank in drawn for sample, _ in rank)
    assert all(counts[sample] >= times for sample, times in enumerate(repeats))
    assert sum(counts.values()) - repeats.sum() < size  # what fills up the last step
    # Another number of ranks goes on from some step.
    done = min(steps * size, int(repeats.sum()))
    rest = world(later, done)
    assert all(value == weight[sample] for rank in rest for sample, value in rank)
    if done:
        before = Counter(s for rank in drawn for s, _ in rank[: done // size])
        after = Counter(s for rank in rest for s, _ in rank)
        assert all(
            (before + after)[s] >= times for s, times in enumerate(repeats) if done % size == 0
        )


def test_few_kinds_travel_as_a_byte_a_draw_and_many_as_four() -> None:
    n, size = 4096, 4
    blocks = Blocks(n, size)
    for kinds, each in ((3, 1), (5000, 4)):
        weight = weights_by_hand(n, kinds, 0)

        def rank(collective: Collective, weight: np.ndarray = weight) -> int:
            mine = slice(blocks.start(collective.rank), blocks.stop(collective.rank))
            mask = KeepMask.full(n)
            sampler = ShardSampler(mask, collective.rank, size)
            before = collective.traffic
            Weights(blocks, collective).deliver(weight[mine], sampler)
            return collective.traffic - before

        sent = max(run_world(size, rank))
        # What a rank owns but for the quarter that it draws itself; the rest is few bytes.
        assert sent <= each * (n / size) * 0.85 + 2048


@dataclass(frozen=True)
class Weighing(Policy):
    """Hides every fifth sample, draws every third twice, weighs by id."""

    columns = ("loss",)
    wrong: str = ""

    def plan(self, view: View) -> Plan:
        ids = view.ids
        weight = (0.25 + ids % 7).astype(np.float32)
        repeats = 1 + (ids % 3 == 0)
        if self.wrong == "nan":
            weight[ids == 15] = np.nan  # hidden: not looked at
            weight[ids == 16] = np.nan
        if self.wrong == "shape":
            weight = weight[1:]
        if self.wrong == "negative":
            repeats[ids == 7] = -1
        always = ids % 5 != 0
        return Plan(view.random_keys(0), 0, always, weight=weight, repeats=repeats)


def weighed(ids: torch.Tensor) -> torch.Tensor:
    return 0.25 + ids % 7


@pytest.mark.parametrize("given_weight", [False, True])
def test_loss_update_and_their_gradients_are_those_of_plain_torch(given_weight: bool) -> None:
    filt = hf.Filter(40, Weighing(), epochs=2)
    mask = filt.begin_epoch(0)
    drawn = Counter(filt.sampler())
    assert drawn == Counter({i: 1 + (i % 3 == 0) for i in range(40) if i % 5})
    assert mask.kept_ids().tolist() == [i for i in range(40) if i % 5]
    ids = torch.tensor([1, 3, 16, 3, 39])
    own = torch.rand(5) if given_weight else None
    weight = weighed(ids) * (1 if own is None else own)
    for axes in ((5, 4), (5, 3, 4)):  # one row a sample; tokens
        logits = torch.randn(axes, requires_grad=True)
        labels = torch.randint(0, 4, axes[:-1])
        plain = logits.detach().clone().requires_grad_()
        each = F.cross_entropy(plain.movedim(-1, 1), labels, reduction="none")
        expected = (each * weight.view(-1, *[1] * (each.dim() - 1))).mean()
        loss = filt.loss(logits, labels, ids, own)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        expected.backward()
        torch.testing.assert_close(logits.grad, plain.grad)
    losses = torch.rand(5, requires_grad=True)
    mean = filt.update(losses, ids, own)
    torch.testing.assert_close(mean, (losses * weight).mean())
    mean.backward()
    torch.testing.assert_close(losses.grad, weight / 5)
    filt.settle()
    # Noted as they are: a weight says how much a sample counts, not how hard it is.
    assert filt.book.column("loss")[39] == losses[4].item()


def test_a_saved_epoch_keeps_its_weights_and_repeats() -> None:
    filt = hf.Filter(40, Weighing(), epochs=2)
    filt.begin_epoch(0)
    first = filt.sampler().ids(0, 20).tolist()
    state = filt.state_dict(consumed=20)
    again = hf.Filter(40, Weighing(), epochs=2)
    again.load_state_dict(state)
    assert again.begin_epoch(0) == filt.mask
    assert again.draws is not None and again.draws.count == filt.draws.count
    rest = again.sampler().ids().tolist()
    assert Counter(first + rest) == Counter(filt.sampler().ids().tolist())
    losses = torch.rand(len(rest), requires_grad=True)
    mean = again.update(losses, rest)
    torch.testing.assert_close(mean, (losses * weighed(torch.tensor(rest))).mean())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("nan", "the plan's weight of sample 16 is nan: it must be finite and not negative"),
        ("shape", r"the plan's weight must be floats of shape \(40,\).*not float32 \(39,\)"),
        ("negative", "the plan's repeats of sample 7 is -1"),
    ],
)
def test_what_a_plan_cannot_hold(wrong: str, sentence: str) -> None:
    with pytest.raises(hf.InputError, match=sentence):
        hf.Filter(40, Weighing(wrong=wrong), epochs=2).begin_epoch(0)


def test_a_sample_without_a_weight_here_and_a_stream_are_refused() -> None:
    filt = hf.Filter(40, Weighing(), epochs=2)
    filt.begin_epoch(0)
    with pytest.raises(hf.InputError, match="sample id 5 is weighted, but its weight is another"):
        filt.update(torch.rand(2, requires_grad=True), [4, 5])
    filt = hf.Filter(40, Weighing(), epochs=2)
    filt.stream(range(40))
    with pytest.raises(hf.InputError, match="Weighing repeats or weighs samples, which a stream"):
        filt.begin_epoch(0)
