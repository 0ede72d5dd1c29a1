import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, ScoreBook
from hvdfilter.agreement.collective import SoloCollective
from hvdfilter.errors import InputError
from tests.agreement import oracle
from tests.agreement.cases import FIELDS, keep_book, observations, replay
from tests.agreement.worlds import all_errors, run_world


# buffers of 7 rows fill in mid-epoch; rounds of 4 records make an exchange take several
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6),
    st.sampled_from([1, 9, 40]),
    st.sampled_from([{}, {"buffer_rows": 7}, {"round_rows": 4}]),
    st.integers(0, 2**32),
)
def test_the_history_is_right_on_any_number_of_ranks(size, num_samples, options, seed):
    seen = observations(np.random.default_rng(seed), num_samples, 4)
    expected = replay(num_samples, seen)

    def body(collective):
        return keep_book(collective, num_samples, seen, **options).gather()

    gathered = run_world(size, body)
    for name, column in expected.items():
        assert np.array_equal(gathered[0][name], column), name
    assert all(column.size == 0 for other in gathered[1:] for column in other.values())


def test_columns_are_the_owner_s_block_and_read_only():
    seen = observations(np.random.default_rng(0), 50, 2)
    expected = replay(50, seen)["loss"]

    def body(collective):
        book = keep_book(collective, 50, seen)
        blocks = Blocks(50, collective.size)
        assert (book.start, book.length) == (
            blocks.start(collective.rank),
            blocks.length(collective.rank),
        )
        column = book.column("loss")
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0
        return np.array_equal(column, expected[book.start : book.start + book.length])

    assert all(run_world(3, body))


def test_an_observation_of_kakurenbo_moves_twelve_bytes():
    book = ScoreBook(10, ("loss", "confidence", "correct"), SoloCollective())
    assert book.record_bytes == 12
    assert ScoreBook(10, ("loss",), SoloCollective()).record_bytes == 8

    def body(collective):
        book = ScoreBook(8000, ("loss", "confidence", "correct"), collective)
        ids = torch.arange(collective.rank, 8000, 2)
        zeros = torch.zeros(ids.numel())
        book.observe(ids, {"loss": zeros, "confidence": zeros, "correct": zeros > 0})
        before = collective.traffic
        book.exchange()
        return collective.traffic - before

    # half of each rank's 4,000 observations are for the other; the rest is two words of checks
    assert all(12 * 2000 <= sent <= 12 * 2000 + 100 for sent in run_world(2, body))


def test_the_last_observation_wins():
    def body(collective):
        book = ScoreBook(16, ("loss", "observations"), collective, buffer_rows=2)
        value = 10.0 * collective.rank
        for loss in (1.0, 2.0):
            book.observe(torch.tensor([3, 12]), {"loss": torch.tensor([loss, value])})
        if collective.rank == 0:
            book.observe(torch.tensor([5]), {"loss": torch.tensor([7.0])})
            book.observe(torch.tensor([5]), {"loss": torch.tensor([8.0])})
        book.exchange()
        return book.gather()

    gathered = run_world(3, body)[0]
    assert gathered["loss"][3] == 2 and gathered["loss"][5] == 8  # the later on one rank
    assert gathered["loss"][12] == 20  # the highest of the ranks
    assert gathered["observations"].tolist() == [int(i in (3, 5, 12)) for i in range(16)]


def test_ages():
    book = ScoreBook(3, ("loss",), SoloCollective())
    for ids in ([0, 1], [0], [], []):
        book.observe(torch.tensor(ids, dtype=torch.int64), {"loss": torch.zeros(len(ids))})
        book.exchange()
        book.end_epoch()
    assert book.column("age").tolist() == [3, 4, -1]
    assert book.column("loss").tolist() == [0, 0, np.inf]
    for _ in range(40_000):
        book.end_epoch()
    assert book.column("age").tolist() == [32767, 32767, -1]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (4, 1)])
def test_a_saved_history_fits_any_number_of_ranks(before, after):
    seen = observations(np.random.default_rng(5), 77, 3)
    fields = (*FIELDS, "dyn_unc")
    saved = run_world(before, lambda c: keep_book(c, 77, seen).gather())[0]

    def body(collective):
        book = ScoreBook(77, fields, collective)
        book.scatter(saved if collective.rank == 0 else None)
        return book.gather()

    restored = run_world(after, body)[0]
    for name, column in saved.items():
        assert restored[name].dtype == column.dtype
        assert np.array_equal(restored[name], column)
    assert restored["confidence_window"].shape == (77, 10)  # unknown to the saved one: as new


def test_statistics_of_a_field():
    seen = observations(np.random.default_rng(6), 90, 1)
    expected = replay(90, seen)["loss"].astype(np.float32)

    def body(collective):
        book = keep_book(collective, 90, seen)
        return book.mean("loss"), book.quantiles("loss", [0, 0.5, 1]).tolist()

    finite = expected[np.isfinite(expected)]
    quantiles = np.quantile(finite, [0, 0.5, 1], method="lower").tolist()
    assert run_world(3, body) == [(oracle.mean(expected), quantiles)] * 3


@pytest.mark.parametrize(
    ("ids", "loss", "sentence"),
    [
        ([3, 24], [1.0, 1.0], r"rank 1: observed id 24 lies outside \[0, 24\)"),
        ([3, -1], [1.0, 1.0], "rank 1: observed id -1"),
        ([3, 17, 4], [1.0, float("nan"), 1.0], "rank 1: the loss of sample 17 is NaN"),
    ],
)
def test_bad_observations_of_one_rank_fail_on_all(ids, loss, sentence):
    def body(collective):
        book = ScoreBook(24, ("loss",), collective)
        good = torch.tensor([collective.rank])
        book.observe(good, {"loss": torch.ones(1)})
        if collective.rank == 1:
            book.observe(torch.tensor(ids), {"loss": torch.tensor(loss)})
        try:
            book.exchange()
        finally:
            assert book.pending == 0  # the bad batch does not come back at the next exchange

    errors = all_errors(3, body)
    assert len(set(errors)) == 1
    with pytest.raises(InputError, match=sentence):
        raise InputError(errors[0])


@pytest.mark.parametrize(
    ("ids", "scores", "sentence"),
    [
        (torch.zeros(2, 2, dtype=torch.int64), {}, "shape"),
        (torch.zeros(2), {}, "integers"),
        (torch.arange(2), {}, "lack 'loss'"),
        (torch.arange(2), {"loss": torch.zeros(3)}, "there are 2 ids"),
    ],
)
def test_a_batch_that_cannot_be_noted(ids, scores, sentence):
    book = ScoreBook(24, ("loss",), SoloCollective())
    with pytest.raises(InputError, match=sentence):
        book.observe(ids, scores)


def test_fields_are_checked():
    with pytest.raises(InputError, match="did you mean 'confidence'"):
        ScoreBook(5, ("confidnce",), SoloCollective())
    book = ScoreBook(5, ("loss",), SoloCollective())
    with pytest.raises(InputError, match="no field 'margin'"):
        book.column("margin")
    with pytest.raises(InputError, match="shape"):
        book.scatter({"loss": np.zeros(4, np.float32)})
