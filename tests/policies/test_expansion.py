"""Expansion: the easiest first, nested, class by class, against a loop over samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import hvdfilter as hf
from hvdfilter.errors import InputError
from hvdfilter.policies import make
from hvdfilter.policies.expansion import Expansion
from tests.policies.static_cases import kept, score_file_of

EPOCHS = 2000  # of the views that `kept` makes


def easiest(loss: np.ndarray, labels: np.ndarray | None, share: float) -> set[int]:
    """Class by class the first by (loss, id), as many as the share says, one at least."""
    classes = np.zeros(len(loss), int) if labels is None else np.maximum(labels, -1)
    chosen: set[int] = set()
    for label in set(classes.tolist()):
        members = sorted(np.flatnonzero(classes == label), key=lambda i: (loss[i], i))
        chosen |= set(members[: max(1, math.floor(round(share * len(members), 6)))])
    return chosen


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-2, 3), st.integers(0, 5)), min_size=1, max_size=50),
    st.sampled_from([0.1, 0.3, 0.77]),
    st.booleans(),
)
def test_sets_are_the_easiest_of_each_class_and_nested(
    data: list[tuple[int, int]], start: float, labelled: bool
) -> None:
    labels, loss = (np.array(row) for row in zip(*data, strict=True))
    columns = {
        "loss": loss.astype(np.float32),
        "observations": np.full(len(loss), 5, np.uint16),
    }
    policy = Expansion(start=start, until=0.5)
    given_labels = labels if labelled else None
    before: set[int] = set()
    for epoch in (5, 6, 300, 600, 1000, 1500):
        share = policy.share(epoch, EPOCHS)
        expected = easiest(loss, given_labels, share)
        for ranks in (1, 2, 3, 4):
            found = kept(policy, columns, len(loss), ranks, epoch=epoch, labels=given_labels)
            assert set(np.flatnonzero(found)) == expected
        assert before <= expected
        before = expected
    assert len(before) == len(loss)  # all are in from `until` on


def test_the_share_rises_by_one_factor_from_start_to_keep() -> None:
    # 20 epochs: opening of 4, then 8 epochs until 0.6 of the run.
    policy = Expansion(start=0.2, keep=0.8, opening=4, until=0.6)
    shares = [policy.share(epoch, 20) for epoch in range(20)]
    assert shares[:4] == [1.0] * 4 and shares[4] == 0.2 and shares[12:] == [0.8] * 8
    factors = np.array(shares[5:13]) / np.array(shares[4:12])
    np.testing.assert_allclose(factors, (0.8 / 0.2) ** (1 / 8), rtol=1e-6)


def test_a_score_file_gives_the_order_from_the_first_epoch(tmp_path: Path) -> None:
    loss = np.random.default_rng(0).exponential(size=50).round(1).astype(np.float32)
    labels = np.arange(50) % 3
    path = score_file_of(tmp_path / "s.parquet", {"loss": loss}, labels)
    policy = make("expansion", scores=path, start=0.2)
    assert policy.columns == ()
    for ranks in (1, 3):
        found = kept(policy, {}, 50, ranks, epoch=0, labels=labels)
        assert set(np.flatnonzero(found)) == easiest(loss, labels, 0.2)


def test_wrong_labels_come_in_last_in_a_real_run() -> None:
    # The effect: a linear model on two Gaussians, a fifth of the labels wrong. After two epochs of
    # opening the easiest half has hardly any of them, a random half would have a fifth.
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.randn(400, 2, generator=generator) + 4 * y[:, None]
    wrong = torch.rand(400, generator=generator) < 0.2
    given_y = torch.where(wrong, 1 - y, y)
    model = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    policy = make("expansion", start=0.5, opening=2, until=1.0)
    filt = hf.Filter(400, policy, epochs=6, labels=given_y.numpy())
    shares, sizes, before = [], [], np.zeros(400, bool)
    for epoch in range(6):
        mask = filt.begin_epoch(epoch, optimizer).numpy()
        if epoch >= 2:
            assert (before <= mask).all()
            before = mask
            shares.append(float(wrong.numpy()[mask].mean()))
            sizes.append(int(mask.sum()))
        for batch in torch.tensor(list(filt.sampler())).split(20):
            optimizer.zero_grad()
            filt.loss(model(x[batch]), given_y[batch], batch).backward()
            optimizer.step()
    filt.end_epoch()
    assert F.cross_entropy(model(x), y) < 0.5
    assert float(wrong.float().mean()) > 0.15 and shares[0] < 0.02
    assert sizes == sorted(sizes) and 198 <= sizes[0] <= 200  # each class rounds down


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start": 0.0}, "start=0.0 must be a share above 0 and at most keep=1.0"),
        ({"start": 0.6, "keep": 0.5}, "start=0.6 must be a share above 0 and at most keep=0.5"),
        ({"until": 0.0}, r"until=0.0 must be a fraction in \(0, 1\]"),
        ({"until": float("nan")}, "until=nan must be a fraction"),
        ({"opening": 0}, "opening=0 must be at least 1 epoch"),
        ({"fraction": "cosine"}, "fraction='cosine' is nothing for it"),
    ],
)
def test_bad_options_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=f"policy 'expansion'.*{sentence}"):
        make("expansion", **options)


def test_an_opening_that_leaves_nothing_is_refused_at_once() -> None:
    filt = hf.Filter(20, make("expansion"), epochs=8)
    with pytest.raises(InputError, match="opening=5 leaves no epoch to grow in until 0.6 of 8"):
        filt.begin_epoch(0)
