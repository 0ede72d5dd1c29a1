"""hf.score against the float64 reference: values, bits, and input that must be refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.errors import InputError
from hvdfilter.scoring import BadRowsError, reference, score
from hvdfilter.scoring.operators import score_op
from tests.scoring.cases import CLASSES, ROWS, assert_scores_close, batch, gap_batch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("classes", CLASSES)
def test_values_of_every_regime(classes: int) -> None:
    for dtype in DTYPES:
        for rows in ROWS:
            logits, labels = batch(rows, classes, dtype)
            expected = reference.score(logits.double(), labels)
            precision = 1e-13 if dtype == torch.float64 else 2e-6
            assert_scores_close(score(logits, labels), expected, precision)
            assert_scores_close(score(logits, labels.int()), expected, precision)


# 10 and 100: packed rows; 300: one row a sweep; 5000: several segments.
@pytest.mark.parametrize("classes", (2, 10, 100, 300, 5000))
@pytest.mark.parametrize("gap", (0.0, 1e-3, 1.0, 5.0, 20.0, 40.0, 80.0))
def test_easy_and_hard_tails_keep_their_digits(gap: float, classes: int) -> None:
    logits, labels = gap_batch(gap, classes)
    assert_scores_close(score(logits, labels), reference.score(logits.double(), labels))


# Every other logit far below one of them: each term is lost beside 1 in a single float sum, and
# together they are not. Up to 256: packed; 4096 and 9000: full and several segments.
@pytest.mark.parametrize("classes", (64, 128, 256, 1000, 4096, 9000))
@pytest.mark.parametrize("depth", (15.2, 16.3, 17.0))
def test_many_small_terms_beside_a_large_one(classes: int, depth: float) -> None:
    logits = torch.full((20, classes), -depth)
    logits[:, 5] = 0.0
    labels = torch.arange(20) * 3
    assert_scores_close(score(logits, labels), reference.score(logits.double(), labels))


def test_norm_of_an_easy_row_is_not_zero() -> None:
    # A gap of 68: exp(-68) = 3e-30, which 1 - p_y in any float arithmetic would lose.
    logits = torch.zeros(1, 3)
    logits[0, 1] = 68.0
    scores = score(logits, torch.tensor([1]))
    assert scores.grad_norm.item() == pytest.approx(6**0.5 * 2.9375e-30, rel=1e-4)
    assert scores.loss.item() == pytest.approx(2 * 2.9375e-30, rel=1e-4)


@given(
    rows=st.integers(0, 40),
    classes=st.integers(1, 200) | st.integers(1000, 5000),
    extra=st.integers(0, 9),
    offset=st.integers(0, 3),
    scale=st.sampled_from((0.0, 1.0, 30.0)),
    dtype=st.sampled_from(DTYPES),
    ignored=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_stride_and_dtype(
    rows: int,
    classes: int,
    extra: int,
    offset: int,
    scale: float,
    dtype: torch.dtype,
    ignored: bool,
) -> None:
    wide = (torch.randn(rows, classes + extra + offset) * scale).to(dtype)
    logits = wide[:, offset : offset + classes]
    labels = torch.randint(0, classes, (rows,))
    if ignored:
        labels[::3] = -100
    expected = reference.score(logits.double(), labels)
    assert_scores_close(score(logits, labels), expected)


@pytest.mark.parametrize("classes", (1, 7, 100, 300, 9000))
def test_equal_logits_and_ties(classes: int) -> None:
    logits = torch.full((20, classes), 3.5)
    labels = torch.randint(0, classes, (20,))
    scores = score(logits, labels)
    assert_scores_close(scores, reference.score(logits.double(), labels))
    assert bool(scores.correct.any()) == (classes == 1)


@pytest.mark.parametrize("classes", (3, 20, 100, 300, 9000))
def test_masked_classes(classes: int) -> None:
    logits, labels = batch(18, classes, torch.float32)
    logits[:, 1::2] = -torch.inf
    logits[5] = -torch.inf  # all others masked: nothing to learn
    logits[5, labels[5]] = 2.0
    logits[torch.arange(18), labels] = logits[torch.arange(18), labels].clamp(min=-5)
    logits[7, labels[7]] = -torch.inf  # the target masked: infinite loss
    logits[7, (labels[7] + 1) % classes] = 1.0
    scores = score(logits, labels)
    assert_scores_close(scores, reference.score(logits.double(), labels))
    assert scores.loss[5] == 0 and scores.grad_norm[5] == 0 and scores.confidence[5] == 1
    assert scores.loss[7] == torch.inf and torch.isfinite(scores.grad_norm[7])


def test_ignored_rows_hold_zeros_and_are_not_looked_at() -> None:
    logits, labels = batch(5, 10, torch.float32)
    logits[2] = torch.nan
    labels[2] = -7
    scores = score(logits, labels, ignore_index=-7)
    assert all(field[2] == 0 for field in scores)
    assert scores.loss[1] > 0


# A full group of rows of every vector width, whose labels are all in range.
def test_a_class_of_its_own_may_be_the_one_to_ignore() -> None:
    logits, labels = batch(40, 10, torch.float32)
    scores = score(logits, labels, ignore_index=4)
    assert_scores_close(scores, reference.score(logits.double(), labels, ignore_index=4))
    assert torch.equal(scores.loss == 0, labels == 4) and (labels == 4).any()


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_features_extend_the_norm_to_the_last_layer(dtype: torch.dtype) -> None:
    logits, labels = batch(6, 10, dtype)
    features = torch.randn(6, 30).to(dtype)
    found = score(logits, labels, features=features)
    expected = reference.score(logits.double(), labels, features=features.double())
    assert_scores_close(found, expected)
    layer = torch.nn.Linear(30, 10)
    loss = torch.nn.functional.cross_entropy(layer(features[:1].float()), labels[:1])
    loss.backward()
    norm = torch.cat([layer.weight.grad.flatten(), layer.bias.grad]).norm()  # type: ignore[union-attr]
    own = score(layer(features[:1].float()), labels[:1], features=features[:1].float())
    torch.testing.assert_close(own.grad_norm[0], norm)


# 10 and 100: several tasks; 70,000 with 2 rows: each row cut up over the threads.
@pytest.mark.parametrize("shape", ((9000, 10), (1000, 100), (300, 1000), (2, 70_000), (1, 300_000)))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_bits_depend_on_the_row_alone(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits, labels = batch(*shape, dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = score(logits, labels)
        for count in (2, 3):
            torch.set_num_threads(count)
            for a, b in zip(one, score(logits, labels), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)
    start = shape[0] // 3
    for a, b in zip(one, score(logits[start:], labels[start:]), strict=True):
        assert torch.equal(a[start:], b)


# At the target, beside it, and half a row from it: in 9000 classes, in another segment.
@pytest.mark.parametrize("classes", (10, 100, 300, 9000))
@pytest.mark.parametrize("value", (torch.nan, torch.inf))
@pytest.mark.parametrize("distance", (0, 1, 0.5))
def test_logits_that_are_no_numbers_are_refused(
    value: float, classes: int, distance: float
) -> None:
    for dtype in DTYPES:
        logits, labels = batch(40, classes, dtype)
        away = int(distance * classes) if distance < 1 else 1
        for row in (37, 21):
            logits[row, (labels[row] + away) % classes] = value
        with pytest.raises(BadRowsError, match="logits: row 21 .* 1 more") as caught:
            score(logits, labels)
        assert caught.value.rows == [21, 37]


def test_a_row_of_nothing_but_masked_classes_is_refused() -> None:
    logits, labels = batch(3, 10, torch.float32)
    logits[1] = -torch.inf
    with pytest.raises(BadRowsError, match="logits: row 1 "):
        score(logits, labels)


@pytest.mark.parametrize("label", (-1, 10, 2**31 - 1, -(2**31), 2**40, -(2**40), -(2**63)))
def test_labels_out_of_range_are_refused(label: int) -> None:
    for dtype in (torch.float32, torch.float64):
        logits, labels = batch(40, 10, dtype)
        labels[29] = label
        for own in (labels, labels.int()) if abs(label) < 2**40 else (labels,):
            with pytest.raises(BadRowsError, match="labels: row 29 ") as caught:
                score(logits, own)
            assert caught.value.rows == [29]


def test_one_row_of_memory_may_be_many_rows() -> None:
    for classes in (10, 300):
        one, _ = batch(1, classes, torch.float32)
        logits, labels = one.expand(40, classes), torch.arange(40) % classes
        assert_scores_close(score(logits, labels), reference.score(logits.double(), labels))


def test_wrong_arguments_are_named() -> None:
    logits, labels = batch(4, 6, torch.float32)
    wrong: list[tuple[str, dict[str, object]]] = [
        ("logits: dtype", {"logits": logits.int()}),
        ("logits: expected", {"logits": logits[0]}),
        ("logits: expected", {"logits": logits[:, :0]}),
        ("logits: the class dimension", {"logits": logits.t().contiguous().t()}),
        ("labels: dtype", {"labels": labels.float()}),
        ("labels: dtype", {"labels": labels.to(torch.int16)}),
        ("labels: expected", {"labels": labels[:3]}),
        ("labels: on meta", {"labels": labels.to("meta")}),
        ("features: expected", {"features": torch.zeros(3, 2)}),
        ("features: dtype", {"features": torch.zeros(4, 2, dtype=torch.int64)}),
    ]
    for message, change in wrong:
        with pytest.raises(InputError, match=message):
            score(**{"logits": logits, "labels": labels, **change})  # type: ignore[arg-type]


def test_scores_are_detached() -> None:
    logits, labels = batch(4, 6, torch.float32)
    scores = score(logits.requires_grad_(), labels)
    assert not any(field.requires_grad for field in scores)


def test_the_registered_operator() -> None:
    logits, labels = batch(5, 10, torch.float32)
    torch.library.opcheck(score_op, (logits, labels, -100))
    assert torch.equal(score_op(logits, labels, -100)[0], score(logits, labels).loss)
