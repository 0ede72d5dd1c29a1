import numpy as np

from hvdfilter.agreement import random


def splitmix64(z):
    """The published finaliser in Python's own integers."""
    mask = (1 << 64) - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mix64_is_splitmix64():
    values = np.array([0, 1, 0x9E3779B97F4A7C15, 2**64 - 1], np.uint64)
    assert random.mix64(values).tolist() == [splitmix64(int(v)) for v in values]
    # first output of the reference generator with seed 0 (Vigna's splitmix64.c)
    assert splitmix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_keys_depend_on_every_argument_and_on_no_order():
    ids = np.arange(1000)
    keys = random.uniform_keys(1, 2, ids, stream=3)
    assert np.array_equal(random.uniform_keys(1, 2, ids[::-1], stream=3), keys[::-1])
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not np.array_equal(random.uniform_keys(other[0], other[1], ids, other[2]), keys)


def test_keys_are_finite_nearly_distinct_and_uniform_in_order():
    # 2^20 keys over 2.1e9 values: 258 collisions expected (n^2 / 2m); 24-bit floats: 32,000
    keys = random.uniform_keys(7, 0, np.arange(1 << 20))
    assert np.isfinite(keys).all() and (keys >= 0).all()
    collisions = keys.size - np.unique(keys).size
    assert 150 < collisions < 400
    # order uniform: every sixteenth of the ids holds its share of the upper half
    upper = keys > np.median(keys)
    shares = upper.reshape(16, -1).mean(axis=1)
    assert np.abs(shares - 0.5).max() < 5 * 0.5 / np.sqrt(keys.size / 16)


def test_uniform01_is_uniform():
    values = random.uniform01(3, 1, np.arange(100_000))
    counts = np.bincount((values * 100).astype(int), minlength=100)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 0 <= values.min() and values.max() < 1
    assert 50 < chi_square < 170  # 99 degrees of freedom: 99 +- 5 * 14
