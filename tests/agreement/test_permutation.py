import numpy as np
import pytest

from hvdfilter.agreement.permutation import Permutation


# table sizes, the last table, the first network, a square, a square plus one, a prime
@pytest.mark.parametrize("n", [1, 2, 3, 100, 65536, 65537, 90_000, 90_001, 99_991])
def test_it_is_a_bijection(n):
    image = Permutation(n, 5, 6)(np.arange(n))
    assert np.array_equal(np.sort(image), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 100, 65536, 65537, 90_000, 90_001, 99_991])
def test_the_inverse_goes_back(n):
    permutation = Permutation(n, 5, 6)
    assert np.array_equal(permutation.inverse(permutation(np.arange(n))), np.arange(n))
    assert np.array_equal(permutation(permutation.inverse(np.arange(n))), np.arange(n))


def test_places_can_be_asked_for_in_any_order():
    permutation = Permutation(100_000, 1)
    places = np.array([99_999, 0, 5, 5])
    assert np.array_equal(permutation(places), permutation(np.arange(100_000))[places])
    assert not np.array_equal(Permutation(100_000, 2)(places), permutation(places))


@pytest.mark.parametrize("n", [6, 80_000])
def test_images_are_uniform(n):
    # where some places go, over many keys, in 6 equal bins: chi-square with 5 degrees of freedom
    keys = 600
    for place in (0, 1, n - 1):
        images = [int(Permutation(n, 9, key)(np.array([place]))[0]) * 6 // n for key in range(keys)]
        counts = np.bincount(images, minlength=6)
        assert ((counts - keys / 6) ** 2 / (keys / 6)).sum() < 25  # p < 1e-4


def test_neighbours_part():
    # pairs (bin of place i, of place i + 1) in 10 x 10 bins: 99 degrees of freedom, 99 +- 5 * 14
    n = 200_000
    image = Permutation(n, 3)(np.arange(n)) * 10 // n
    counts = np.bincount(image[:-1] * 10 + image[1:], minlength=100)
    expected = (n - 1) / 100
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 40 < chi_square < 170
    # and a place says nothing about its image
    joint = np.bincount((np.arange(n) * 10 // n) * 10 + image, minlength=100)
    assert ((joint - n / 100) ** 2 / (n / 100)).sum() < 170


def test_every_order_of_three_comes_up():
    orders = [tuple(Permutation(3, key)(np.arange(3)).tolist()) for key in range(600)]
    counts = np.unique([o[0] * 9 + o[1] * 3 + o[2] for o in orders], return_counts=True)[1]
    assert counts.size == 6 and ((counts - 100) ** 2 / 100).sum() < 25
