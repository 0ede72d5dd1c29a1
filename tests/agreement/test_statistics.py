import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hvdfilter.agreement import statistics
from hvdfilter.agreement.collective import SoloCollective
from hvdfilter.errors import InputError
from tests.agreement import oracle
from tests.agreement.worlds import run_world

floats = arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False))


def spread(values, size):
    return lambda body: run_world(size, lambda c: body(values[c.rank :: size], c))


@settings(deadline=None)
@given(floats, st.integers(1, 4))
def test_mean_is_exact_on_any_number_of_ranks(values, size):
    if not np.isfinite(values).any():
        values = np.append(values, np.float32(1))
    means = spread(values, size)(statistics.mean)
    assert set(means) == {oracle.mean(values)}


def test_mean_of_doubles_and_subnormals():
    values = np.array([1e308, -1e308, 5e-324, 2.0**-1000, 3.0])
    assert statistics.mean(values, SoloCollective()) == oracle.mean(values)
    tiny = np.float32([1e-45, 1e-45, -3e-45])
    assert statistics.mean(tiny, SoloCollective()) == oracle.mean(tiny)


def test_moments():
    values = np.random.default_rng(1).normal(3, 0.01, 5000).astype(np.float32)
    for mean, deviation in spread(values, 3)(statistics.moments):
        assert mean == oracle.mean(values)
        assert deviation == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


@settings(deadline=None)
@given(floats, st.integers(1, 4), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_quantiles_are_numpys_lower_ones(values, size, q):
    found = spread(values, size)(lambda v, c: statistics.quantiles(v, q, c))
    ordered = np.sort(values + np.float32(0))  # no -0.0
    # floor(q (n - 1)) in exact arithmetic; NumPy rounds the product first
    places = [math.floor(statistics.Fraction(x) * (values.size - 1)) for x in q]
    for result in found:
        assert np.array_equal(result, ordered[places])


def test_many_quantiles_cost_three_histograms():
    values = np.random.default_rng(2).normal(size=1000).astype(np.float32)

    def body(part, collective):
        result = statistics.quantiles(part, np.linspace(0, 1, 101), collective)
        return result, collective.calls

    result, calls = spread(values, 2)(body)[0]
    expected = np.quantile(values, np.linspace(0, 1, 101), method="lower")
    assert np.array_equal(result, expected)
    assert calls == 4  # the number of values, and three rounds


def test_nothing_to_look_at():
    empty = np.empty(0, np.float32)
    assert np.isnan(statistics.mean(empty, SoloCollective()))
    assert np.isnan(statistics.moments(empty, SoloCollective())).all()
    assert np.isnan(statistics.quantiles(empty, [0.5], SoloCollective())).all()
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        statistics.quantiles(empty, [1.5], SoloCollective())
