"""The native counting passes against the NumPy ones, and those against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import radix, reference
from tests.agreement.cases import SPECIAL


def keys_of(rng, count, kind):
    bits = rng.integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)
    patterns = np.where(np.isnan(bits), np.float32(1), bits)
    return {
        "patterns": patterns,  # every exponent and sign
        "tied": rng.integers(-2, 3, count).astype(np.float32),
        "special": rng.choice(SPECIAL, count),
        "close": (1 + rng.integers(0, 4, count) * 1.2e-7).astype(np.float32),  # last digit decides
    }[kind]


def test_order_bits_order_as_the_floats_do():
    keys = np.sort(
        np.unique(np.concatenate([SPECIAL, keys_of(np.random.default_rng(0), 999, "patterns")]))
    )
    bits = reference.order_bits(keys)
    assert (np.diff(bits.astype(np.int64)) > 0).all()
    assert reference.order_bits(np.float32([-0.0])) == reference.order_bits(np.float32([0.0]))


# 2048 is the native block: one short of it, it, one more, and several
@settings(max_examples=60)
@given(
    st.sampled_from([0, 1, 3, 2047, 2048, 2049, 7001]),
    st.sampled_from(["patterns", "tied", "special", "close"]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_native_passes_equal_the_reference(count, kind, nodes, grouped, weighted, seed):
    rng = np.random.default_rng(seed)
    keys = keys_of(rng, count, kind)
    groups = rng.integers(0, nodes, count).astype(np.int32) if grouped else None
    weights = rng.integers(0, 5, count) if weighted else None
    children = []
    for level, width in enumerate(radix.WIDTHS):
        arguments = (keys, level, groups, children, nodes, weights)
        expected = reference.count(*arguments)
        assert np.array_equal(radix.count(*arguments), expected)
        child = np.full((nodes, width), -1, np.int32)
        for node in range(nodes):  # follow one or two non-empty digits of every node
            filled = np.flatnonzero(expected[node])
            chosen = rng.choice(filled, min(filled.size, 1 + node % 2), replace=False)
            child[node, chosen] = node
        children.append(child)
    some = keys[:nodes] if count >= nodes else np.zeros(nodes, np.float32)
    thresholds = reference.order_bits(some)
    rest = rng.integers(-1, count + 2, nodes)
    arguments = (keys, thresholds, rest, groups, weights)
    before = rest.copy()
    assert np.array_equal(radix.emit(*arguments), reference.emit(*arguments))
    assert np.array_equal(rest, before)  # the caller's array is left alone


def test_histogram_of_one_digit_counts_what_it_says():
    keys = np.float32([1.0, 1.0, -1.0, 0.0, -0.0])
    counts = radix.count(keys, 0, None, [], 1, None)[0]
    assert counts.sum() == 5
    assert counts[0x3F800000 + 0x80000000 >> 21] == 2
    assert counts[0x80000000 >> 21] == 2


@pytest.mark.parametrize("at", [0, 2047, 2048, 5000])
def test_first_nan(at):
    keys = np.ones(6000, np.float32)
    assert radix.first_nan(keys) is None is reference.first_nan(keys)
    keys[[at, 5999]] = np.nan
    assert radix.first_nan(keys) == at == reference.first_nan(keys)
