"""Minority repeats: how often each sample is drawn, against a loop over classes and samples."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import hvdfilter as hf
from hvdfilter.agreement import random
from hvdfilter.errors import InputError
from hvdfilter.policies import Limited, make, minority
from tests.policies.limited_cases import SEED, Outcome, Toy, columns_of, outcome

RANKS = (1, 2, 3, 4)
CHANCE_EPOCH = 3  # the epoch that `outcome` plans


def repeated_by_hand(inner: Outcome, labels: np.ndarray, share: float, cap: int) -> list[int]:
    """Draw by draw: whole rounds over what was drawn, then whole rounds over who is kept, then
    one each for those whom chance names first."""
    chance = random.uniform_keys(SEED, CHANCE_EPOCH, np.arange(len(labels)), minority.STREAM)
    times = [int(r) if kept else 0 for r, kept in zip(inner.repeats, inner.kept, strict=True)]
    result = list(times)
    members = {
        label: [i for i in range(len(labels)) if labels[i] == label and times[i] > 0]
        for label in set(labels.tolist()) - {-1}
    }
    draws = {label: sum(times[i] for i in ids) for label, ids in members.items()}
    most = max(draws.values(), default=0)
    for label, ids in members.items():
        goal = min(math.ceil(Fraction(str(share)) * most), cap * draws[label])
        left = goal - draws[label]
        while ids and left >= draws[label]:
            for i in ids:
                result[i] += times[i]
            left -= draws[label]
        while ids and left >= len(ids):
            for i in ids:
                result[i] += 1
            left -= len(ids)
        for i in sorted(ids, key=lambda i: (-chance[i], i))[: max(0, left)]:
            result[i] += 1
    return result


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("form", ["budget", "coin", "draws", "groups", "nothing"])
@pytest.mark.parametrize(("share", "cap"), [(0.3, 10), (1.0, 10), (1.0, 2), (0.5, 1)])
def test_rare_classes_are_drawn_as_often_as_they_should(
    form: str, share: float, cap: int, ranks: int
) -> None:
    # Every form of a plan: budgets, coins, groups, and draws of which some are zero.
    columns = columns_of(97)
    inner = outcome(Toy(form), columns, 1)
    found = outcome(Limited(Toy(form), minority=share, minority_cap=cap), columns, ranks)
    expected = repeated_by_hand(inner, columns["label"], share, cap)
    assert np.where(found.kept, found.repeats, 0).tolist() == expected
    assert (found.kept == inner.kept).all() and (found.weight == inner.weight).all()
    if form in ("budget", "coin") and cap > 1:
        assert sum(expected) > inner.kept.sum()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.33, 0.5, 1.0]),
    st.integers(1, 4),
    st.sampled_from(RANKS),
)
def test_the_law_of_minority(
    data: list[tuple[int, int]], share: float, cap: int, ranks: int
) -> None:
    labels, loss = (np.array(row) for row in zip(*data, strict=True))
    columns = {"loss": loss.astype(np.float32), "label": labels}
    inner = outcome(Toy("budget"), columns, 1)
    found = outcome(Limited(Toy("budget"), minority=share, minority_cap=cap), columns, ranks)
    assert np.where(found.kept, found.repeats, 0).tolist() == repeated_by_hand(
        inner, labels, share, cap
    )
    drawn = [found.repeats[found.kept & (labels == label)] for label in range(5)]
    sizes = [int((inner.kept & (labels == label)).sum()) for label in range(5)]
    for times, size in zip(drawn, sizes, strict=True):
        if size:
            assert times.max() - times.min() <= 1  # evenly
            assert size <= times.sum() <= cap * size or times.sum() == size
            assert times.sum() >= min(share * max(sizes), cap * size) - 1e-9


def test_chance_takes_turns() -> None:
    # 3 samples of 20 draws a class at half: each is drawn 3 or 4 times, another one each epoch.
    labels = np.array([0] * 20 + [1] * 3)
    columns = {"loss": np.zeros(23, np.float32), "label": labels}
    policy = make("full", minority=0.5)
    more = [outcome(policy, columns, 1, epoch, 400).repeats[20:] - 3 for epoch in range(400)]
    assert all(sum(row) == 1 for row in more)
    # 400 times one of three: mean 133, deviation 9.4.
    assert np.abs(np.sum(more, axis=0) - 400 / 3).max() < 4 * 9.4


def test_warm_up_and_annealing_are_filled_up_too() -> None:
    columns = {"loss": np.zeros(12, np.float32), "label": np.array([0] * 10 + [1] * 2)}
    for epoch in (0, 9):
        found = outcome(make("random", warmup=1, anneal=0.1, minority=1.0), columns, 2, epoch, 10)
        assert found.kept.all() and found.repeats.tolist() == [1] * 10 + [5] * 2


def test_a_filter_draws_them_and_counts_them() -> None:
    labels = np.array([0] * 40 + [1] * 5)
    filt = hf.Filter(45, hf.policies.make("full", minority=0.5), epochs=1, labels=labels)
    filt.begin_epoch(0)
    drawn = np.array(list(filt.sampler()))
    assert np.bincount(labels[drawn]).tolist() == [40, 20]
    assert filt.trained == 60 and filt.hidden == 0


def test_the_rare_are_recalled_more_often_in_a_real_run() -> None:
    # Digits 3 and 8 cut to 12 samples each, a linear model, ten epochs.
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    x, y = images.float() / 16, labels
    test = torch.arange(len(y)) % 5 == 0
    rare = (y == 3) | (y == 8)
    ids = torch.cat(
        [torch.where(~test & (y == digit))[0][: 12 if digit in (3, 8) else None]
         for digit in range(10)]
    )  # fmt: skip
    recall = {}
    for share in (0.0, 0.5):
        torch.manual_seed(0)
        model = torch.nn.Linear(64, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        policy = make("full", minority=share) if share else "full"
        filt = hf.Filter(len(ids), policy, epochs=10, labels=y[ids].numpy())
        for epoch in range(10):
            filt.begin_epoch(epoch, optimizer)
            for batch in torch.tensor(list(filt.sampler())).split(32):
                optimizer.zero_grad()
                filt.loss(model(x[ids[batch]]), y[ids[batch]], batch).backward()
                optimizer.step()
        filt.end_epoch()
        recall[share] = float((model(x[test & rare]).argmax(1) == y[test & rare]).double().mean())
    assert recall[0.5] > recall[0.0] + 0.3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"minority": 1.5}, r"minority=1.5 must be a share in \[0, 1\]"),
        ({"minority": float("nan")}, "minority=nan must be a share"),
        ({"minority_cap": 0}, "minority_cap=0 must be 1 or more"),
        ({"minorty": 0.5}, "did you mean 'minority'"),
    ],
)
def test_bad_options_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make("random", **options)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "minority needs labels: give them to Filter as labels="),
        (np.ones(10), "minority needs integer labels, not float64"),
        (np.full(10, 1 << 40), "minority needs labels that count the classes from 0"),
    ],
)
def test_labels_that_cannot_be_counted_are_named(labels: np.ndarray, sentence: str) -> None:
    filt = hf.Filter(10, make("full", minority=0.5), epochs=1, labels=labels)
    with pytest.raises(InputError, match=sentence):
        filt.begin_epoch(0)
