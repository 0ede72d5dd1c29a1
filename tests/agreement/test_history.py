"""The fields kept for people, against a loop over samples and epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import ScoreBook, SoloCollective, fields
from hvdfilter.agreement.history import HISTORY
from hvdfilter.errors import InputError
from tests.agreement.worlds import run_world

Epoch = tuple[np.ndarray, np.ndarray, np.ndarray]  # kept, observed, margin; each [N]


def made_up(rng: np.random.Generator, n: int, epochs: int) -> list[Epoch]:
    """Some hidden samples are looked at again, some kept ones are not reached."""
    return [
        (rng.random(n) < 0.6, rng.random(n) < 0.8, rng.normal(size=n).astype(np.float32))
        for _ in range(epochs)
    ]


def replay(n: int, epochs: list[Epoch]) -> dict[str, np.ndarray]:
    rows = []
    for sample in range(n):
        hidden, since, margins, seen = 0, -1, [], 0
        for kept, observed, margin in epochs:
            seen += bool(observed[sample])
            if kept[sample]:
                since = 0
                if observed[sample]:
                    margins.append(float(margin[sample]))
            else:
                hidden += 1
                since += since >= 0
        mean = sum(margins) / len(margins) if margins else np.inf
        rows.append((hidden, since, len(margins), mean, seen))
    names = ("hidden_epochs", "since_trained", "trained_epochs", "margin_mean", "observations")
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.sampled_from([1, 9, 40]), st.integers(0, 5), st.integers(0, 2**32))
def test_what_is_kept_for_people_is_right_on_any_number_of_ranks(
    size: int, n: int, epochs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    course = made_up(rng, n, epochs)
    expected = replay(n, course)

    def body(collective: Any) -> dict[str, np.ndarray]:
        book = ScoreBook(n, HISTORY, collective)
        for kept, observed, margin in course:
            mine = np.flatnonzero(observed)[collective.rank :: collective.size]
            one = torch.ones(len(mine))
            scores = {"loss": one, "confidence": one, "margin": torch.from_numpy(margin[mine])}
            book.observe(torch.from_numpy(mine), scores)
            book.exchange()
            book.end_epoch(kept[book.start : book.start + book.length])
        return book.gather()

    found = run_world(size, body)[0]
    for name, column in expected.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-5, atol=1e-6, err_msg=name)


def test_counts_stop_where_their_type_ends() -> None:
    book = ScoreBook(2, HISTORY, SoloCollective())
    book.put("hidden_epochs", np.array([65534, 3], np.uint16))
    book.put("since_trained", np.array([32766, -1], np.int16))
    for _ in range(3):
        book.end_epoch(np.zeros(2, bool))
    assert book.column("hidden_epochs").tolist() == [65535, 6]
    assert book.column("since_trained").tolist() == [32767, -1]


def test_history_adds_the_margin_to_what_travels_and_no_more() -> None:
    kakurenbo = ("loss", "confidence", "correct")
    bare = ScoreBook(9, kakurenbo, SoloCollective())
    noted = ScoreBook(9, (*HISTORY, *kakurenbo), SoloCollective())
    assert (bare.record_bytes, noted.record_bytes) == (12, 16)
    assert ScoreBook(9, HISTORY, SoloCollective(), exchange="8bit").record_bytes == 7


def test_the_first_of_a_field_that_nothing_observes_is_refused() -> None:
    hidden = next(f for f in HISTORY if getattr(f, "name", f) == "hidden_epochs")
    with pytest.raises(InputError, match="'hidden_epochs' is changed by no observation"):
        fields.first(3, hidden)  # type: ignore[arg-type]
