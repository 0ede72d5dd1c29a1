"""Codes of observed values, against a search through all half-precision numbers there are."""

from __future__ import annotations

import bisect
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, ScoreBook, select
from hvdfilter.agreement.collective import SoloCollective
from hvdfilter.agreement.precision import Code, Precision
from hvdfilter.errors import InputError
from tests.agreement.cases import SPECIAL, keep_book, observations
from tests.agreement.worlds import run_world

LOW = ("float16", "8bit")
# Every finite half, as Python's numbers, ascending; -0.0 and 0.0 are one.
HALVES = sorted(
    {float(h) for h in np.arange(1 << 16, dtype=np.uint16).view(np.float16) if np.isfinite(h)}
)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Of one magnitude, so that many values share a code, and of any.
values = st.lists(finite, min_size=1, max_size=40) | st.lists(
    st.floats(-4, 4, width=32), min_size=1, max_size=40
)
some = settings(max_examples=100, deadline=None)


def code_of(exchange: str, column: np.ndarray) -> Code:
    precision = Precision(exchange, ["loss"])
    return precision.codes(precision.extent({"loss": column}))["loss"]


def nearest_half(value: float, power: int) -> float:
    """The half nearest to value * 2^power, by a search in exact arithmetic; ties to even."""
    wanted = Fraction(value) * Fraction(2) ** power
    at = bisect.bisect_left(HALVES, wanted)
    around = HALVES[max(0, at - 1) : at + 1]
    gaps = [abs(Fraction(half) - wanted) for half in around]
    best = [half for half, gap in zip(around, gaps, strict=True) if gap == min(gaps)]
    return min(best, key=lambda half: int(np.float16(half).view(np.uint16)) & 1)


@some
@given(values)
def test_float16_is_the_nearest_half_of_the_scaled_value(column: list[float]) -> None:
    array = np.array(column, np.float32)
    code = code_of("float16", array)
    assert code.encode(array).dtype == np.uint16
    largest = max(abs(float(v)) for v in array)
    power = 15 - math.frexp(largest)[1]
    back = code.decode(code.encode(array))
    for value, found in zip(array, back, strict=True):
        exact = Fraction(nearest_half(float(value), power)) / Fraction(2) ** power
        with np.errstate(over="ignore"):
            expected = np.float32(float(exact))
        limit = np.finfo(np.float32).max
        assert found == np.clip(expected, -limit, limit)


@settings(max_examples=25, deadline=None)
@given(values)
def test_8bit_is_one_of_254_stretches_of_the_halves_in_between(column: list[float]) -> None:
    array = np.array(column, np.float32)
    power = 15 - math.frexp(max(abs(float(v)) for v in array))[1]
    scaled = [nearest_half(float(v), power) for v in array]
    range_ = [half for half in HALVES if min(scaled) <= half <= max(scaled)]
    count = min(254, len(range_))
    stretches: list[list[float]] = [[] for _ in range(count)]
    for place, half in enumerate(range_):
        stretches[place * count // len(range_)].append(half)
    code = code_of("8bit", array)
    codes = code.encode(array)
    assert codes.dtype == np.uint8
    back = code.decode(codes)
    for half, number, found in zip(scaled, codes, back, strict=True):
        stretch = stretches[number - 1]
        assert half in stretch
        middle = Fraction(stretch[(len(stretch) - 1) // 2]) / Fraction(2) ** power
        limit = np.finfo(np.float32).max
        with np.errstate(over="ignore"):
            assert found == np.clip(np.float32(float(middle)), -limit, limit)


@pytest.mark.parametrize("exchange", LOW)
@some
@given(values)
def test_codes_keep_the_order_and_what_is_infinite(exchange: str, column: list[float]) -> None:
    array = np.sort(np.array([*column, -np.inf, np.inf, 0.0, -0.0], np.float32))
    code = code_of(exchange, array)
    codes, back = code.encode(array), code.decode(code.encode(array))
    assert (np.diff(codes.astype(np.int64)) >= 0).all()
    assert (back[1:] >= back[:-1]).all()
    assert (np.isinf(back) == np.isinf(array)).all()
    assert (back[np.isinf(array)] == array[np.isinf(array)]).all()
    assert (code.encode(back) == codes).all()  # what is stored would get the same code again


@some
@given(values)
def test_the_stated_error_of_float16(column: list[float]) -> None:
    # docs/neighbours.md: 2^-11 of the value, or 2^-39 of the largest where that is more.
    array = np.array(column, np.float32)
    code = code_of("float16", array)
    back = code.decode(code.encode(array)).astype(np.float64)
    exact = array.astype(np.float64)
    bound = np.maximum(np.abs(exact) * 2.0**-11, np.abs(exact).max() * 2.0**-39)
    # Below the smallest normal float32 the stored number itself is coarse.
    assert (np.abs(back - exact) <= bound + 2.0**-150).all()


@some
@given(st.lists(st.floats(2.0**-20, 8, width=32), min_size=1, max_size=60))
def test_the_stated_error_of_8bit(column: list[float]) -> None:
    # docs/neighbours.md: of values that are not negative, within 2^24 of the largest, a sixteenth.
    array = np.array(column, np.float32)
    code = code_of("8bit", array)
    back = code.decode(code.encode(array)).astype(np.float64)
    assert (np.abs(back - array) <= array / 16).all()


@pytest.mark.parametrize("exchange", LOW)
@settings(max_examples=60, deadline=None)
@given(values, st.data())
def test_only_samples_of_the_threshold_s_code_change_place(
    exchange: str, column: list[float], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, len(column)))
    array = np.array(column, np.float32)
    code = code_of(exchange, array)
    codes = code.encode(array)

    def masks(collective):
        blocks = Blocks(array.size, collective.size)
        mine = slice(blocks.start(collective.rank), blocks.stop(collective.rank))
        stored = code.decode(codes)
        return [select(keys[mine], keep, blocks, collective) for keys in (array, stored)]

    for ranks in (1, 3):
        parts = run_world(ranks, masks)
        exact, coarse = (np.concatenate(column) for column in zip(*parts, strict=True))
        threshold = codes[sorted(range(array.size), key=lambda i: (-array[i], i))[keep - 1]]
        assert (codes[exact != coarse] == threshold).all()
        assert exact.sum() == coarse.sum() == keep


@pytest.mark.parametrize("exchange", LOW)
@pytest.mark.parametrize("options", [{}, {"round_rows": 4}])
def test_the_history_is_the_same_bits_on_any_number_of_ranks(exchange: str, options: dict) -> None:
    # Some ranks own no sample (9 ids are two bytes), and the rounds of one exchange share a scale.
    for num_samples, special in ((9, True), (40, True), (40, False)):
        seen = observations(np.random.default_rng(3), num_samples, 3)
        for ids, scores in seen:
            if special:
                scores["loss"][: len(SPECIAL)] = SPECIAL[: ids.size]

        def body(collective, seen=seen, num_samples=num_samples):
            return keep_book(collective, num_samples, seen, exchange=exchange, **options).gather()

        alone, *others = (run_world(ranks, body)[0] for ranks in (1, 2, 3, 4))
        exact = keep_book(SoloCollective(), num_samples, seen).gather()
        assert (alone["correct"] == exact["correct"]).all()
        assert (alone["confidence"] != exact["confidence"]).any()
        for other in others:
            for name, column in other.items():
                assert column.tobytes() == alone[name].tobytes(), name


def test_an_observation_of_kakurenbo_moves_twelve_eight_or_six_bytes() -> None:
    names = ("loss", "confidence", "correct")
    for exchange, size in (("float32", 12), ("float16", 8), ("8bit", 6)):
        assert ScoreBook(10, names, SoloCollective(), exchange=exchange).record_bytes == size

        def body(collective, exchange=exchange):
            book = ScoreBook(8000, names, collective, exchange=exchange)
            ids = np.arange(collective.rank, 8000, 2)
            some = np.linspace(0, 1, ids.size, dtype=np.float32)
            book.observe(ids, {"loss": some, "confidence": some, "correct": some > 0.5})
            before = collective.traffic
            book.exchange()
            return collective.traffic - before

        # half of each rank's 4,000 observations are for the other
        assert all(size * 2000 <= sent <= size * 2000 + 120 for sent in run_world(2, body))


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(InputError, match="exchange='fp8' is unknown: choose from float32, float16"):
        ScoreBook(10, ("loss",), SoloCollective(), exchange="fp8")
