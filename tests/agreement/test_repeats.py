"""Rows of one call that name one sample, against a loop over calls and ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import ScoreBook, SoloCollective

# Calls of a few samples each, so that ids repeat within a call, between calls, and not at all.
CALLS = st.lists(st.lists(st.integers(0, 8), max_size=12), max_size=6)


def replay(calls, seed):
    """Every call's scores, and what must be left of them: the mean of each id's rows, the last."""
    rng = np.random.default_rng(seed)
    scores, left = [], {}
    for ids in calls:
        loss = rng.exponential(size=len(ids)).astype(np.float32)
        norm = rng.exponential(size=len(ids)).astype(np.float32)
        correct = rng.random(len(ids)) < 0.5
        seen = rng.random(len(ids)) < 0.8
        scores.append({"loss": loss, "grad_norm": norm, "correct": correct, "seen": seen})
        for sample in set(ids):
            rows = [row for row, other in enumerate(ids) if other == sample and seen[row]]
            if rows:
                means = [sum(map(float, column[rows])) / len(rows) for column in (loss, norm)]
                left[sample] = (*means, sum(correct[rows]) * 2 > len(rows))
    return scores, left


# buffers of 7 rows move in the middle of an epoch; a call is never cut in two
@settings(max_examples=150, deadline=None)
@given(CALLS, st.sampled_from([7, 1000]), st.integers(0, 2**32))
def test_repeated_ids_are_averaged_and_between_calls_the_later_wins(calls, buffer_rows, seed):
    scores, left = replay(calls, seed)
    fields = ("loss", "grad_norm", "correct", "observations")
    book = ScoreBook(9, fields, SoloCollective(), buffer_rows=buffer_rows)
    for ids, given_scores in zip(calls, scores, strict=True):
        seen = torch.from_numpy(given_scores["seen"])
        book.observe(torch.tensor(ids, dtype=torch.int64), given_scores, seen)
    book.exchange()
    for sample in range(9):
        loss, norm, correct = left.get(sample, (np.inf, np.inf, False))
        assert book.column("loss")[sample] == pytest.approx(loss, rel=1e-6)
        assert book.column("grad_norm")[sample] == pytest.approx(norm, rel=1e-6)
        assert book.column("correct")[sample] == correct
        assert book.column("observations")[sample] == (sample in left)


def test_calls_that_say_what_was_seen_and_calls_that_do_not():
    book = ScoreBook(4, ("loss",), SoloCollective())
    book.observe(torch.tensor([0, 1]), {"loss": torch.tensor([1.0, 2.0])})
    book.observe(torch.tensor([1, 2]), {"loss": torch.zeros(2)}, torch.tensor([0.0, 0.5]))
    book.exchange()
    assert book.column("loss").tolist() == [1, 2, 0, np.inf]


def test_a_share_that_is_correct_counts_from_one_half():
    book = ScoreBook(4, ("correct",), SoloCollective())
    book.observe(torch.arange(4), {"correct": torch.tensor([0.4, 0.5, 0.6, 1.0])})
    book.exchange()
    assert book.column("correct").tolist() == [False, False, True, True]
