"""Every update rule against the definition in its source, on the history of one sample."""

import numpy as np
import pytest
import torch

from hvdfilter.agreement import ScoreBook, fields
from hvdfilter.agreement.collective import SoloCollective
from hvdfilter.errors import InputError


def after(names, **history):
    """The book's columns for sample 1 of 3, observed once an epoch."""
    book = ScoreBook(3, names, SoloCollective())
    columns = []
    for values in zip(*history.values(), strict=True):
        scores = {k: torch.tensor([v]) for k, v in zip(history, values, strict=True)}
        book.observe(torch.tensor([1]), scores)
        book.exchange()
        book.end_epoch()
        columns.append({field.name: book.column(field.name)[1].copy() for field in book.fields})
    for field in book.fields:  # the neighbours were never seen
        assert (book.column(field.name)[[0, 2]] == field.initial).all()
    return columns


def test_forgetting_counts_falls_from_right_to_wrong():
    correct = [False, True, False, False, True, True, False]
    history = after(["forgetting", "learnt"], correct=correct)
    assert [row["forgetting"] for row in history] == [0, 0, 1, 1, 1, 1, 2]
    assert [bool(row["learnt"]) for row in history] == [False] + 6 * [True]


def test_averages():
    loss = [4.0, 2.0, 3.0]
    history = after(["loss_mean", "loss_average", "loss_previous"], loss=loss)
    assert [row["loss_mean"] for row in history] == pytest.approx([4, 3.8, 3.72])
    assert [row["loss_average"] for row in history] == pytest.approx([4, 3, 3])
    assert [row["loss_previous"] for row in history] == [np.inf, 4, 2]
    custom = after([fields.moving_average("loss", 0.5, "half")], loss=loss)
    assert [row["half"] for row in custom] == pytest.approx([4, 3, 3])


def test_loss_curvature_is_the_second_difference():
    loss = [5.0, 3.0, 2.5, 2.5, 0.5]
    bends = np.abs(np.diff(loss, 2))
    history = after(["loss_curvature"], loss=loss)
    expected = [np.inf, np.inf, bends[0]]
    for bend in bends[1:]:
        expected.append((expected[-1] + bend) / 2)
    assert [row["loss_curvature"] for row in history] == pytest.approx(expected)


def test_dyn_unc_is_the_mean_deviation_over_sliding_windows():
    probability = np.random.default_rng(0).uniform(0.05, 0.95, 14)
    history = after(["dyn_unc"], loss=(-np.log(probability)).tolist())
    for epoch, row in enumerate(history):
        windows = [probability[i : i + 10] for i in range(max(0, epoch - 8))]
        expected = np.mean([np.std(w, ddof=1) for w in windows]) if windows else 0
        assert row["dyn_unc"] == pytest.approx(expected, rel=1e-4)


def test_a_field_of_one_s_own():
    largest = fields.Field(
        "largest", "<f4", 0.0, ("loss",), lambda old, seen: np.maximum(old["largest"], seen["loss"])
    )
    history = after([largest, "loss"], loss=[1.0, 3.0, 2.0])
    assert [row["largest"] for row in history] == [1, 3, 3]


def test_unusable_fields_are_refused():
    odd = fields.Field("odd", "<f4", 0.0, ("flavour",), lambda old, seen: old["odd"])
    with pytest.raises(InputError, match="flavour"):
        fields.resolve([odd])
    with pytest.raises(InputError, match="no moving average of 'correct'"):
        fields.moving_average("correct", 0.5)


PLAIN = {
    "el2n": fields.average("grad_norm", "el2n"),
    "aum": fields.average("margin", "aum"),
    **{name: fields.FIELDS[name] for name in ("forgetting", "learnt", "dyn_unc", "loss")},
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_field_of_the_first_observations_stays_as_it_was_then(name, count):
    rng = np.random.default_rng(count)
    scores = {of: rng.uniform(0.1, 2, 15).tolist() for of in ("loss", "grad_norm", "margin")}
    scores["correct"] = (rng.uniform(size=15) < 0.5).tolist()
    plain = after([PLAIN[name]], **scores)
    frozen = after([fields.first(count, PLAIN[name])], **scores)
    for epoch, row in enumerate(frozen):
        assert row[name] == plain[min(epoch, count - 1)][name]
    if name in ("el2n", "loss"):  # and it would not have stayed by itself
        assert plain[-1][name] != plain[count - 1][name]


def test_average_is_the_mean_of_what_was_seen():
    norms = [1.0, 0.25, 0.4]
    rows = after([PLAIN["el2n"]], grad_norm=norms)
    assert [row["el2n"] for row in rows] == pytest.approx(np.cumsum(norms) / [1, 2, 3])


def test_fields_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="'el2n' needs at least 1 observation, not 0"):
        fields.first(0, PLAIN["el2n"])
    with pytest.raises(InputError, match="no average of 'correct'"):
        fields.average("correct")
