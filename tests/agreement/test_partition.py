import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks
from hvdfilter.errors import InputError


@given(st.integers(1, 500), st.integers(1, 40))
def test_blocks_cover_every_id_once_and_know_its_owner(num_samples, size):
    blocks = Blocks(num_samples, size)
    owned = [np.arange(blocks.start(r), blocks.stop(r)) for r in range(size)]
    assert np.array_equal(np.concatenate(owned), np.arange(num_samples))
    for rank, ids in enumerate(owned):
        assert ids.size == blocks.length(rank)
        assert (blocks.owner(ids) == rank).all()
        # a block starts at a whole byte of the mask, so packed blocks join without shifting
        assert blocks.start(rank) % 8 == 0 or blocks.start(rank) == num_samples
        assert blocks.byte_count(rank) == -(-ids.size // 8)


def test_a_billion_samples_on_sixteen_thousand_ranks_does_not_overflow():
    blocks = Blocks(10**12, 16384)
    ids = np.array([0, 10**12 - 1, 5 * 10**11])
    for sample, rank in zip(ids, blocks.owner(ids), strict=True):
        assert blocks.start(rank) <= sample < blocks.stop(rank)


@pytest.mark.parametrize("arguments", [(0, 1), (-1, 2), (5, 0)])
def test_empty_worlds_are_refused(arguments):
    with pytest.raises(InputError, match="at least 1"):
        Blocks(*arguments)
