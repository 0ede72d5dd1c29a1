import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, KeepMask, merge_local
from hvdfilter.agreement.random import mix64
from hvdfilter.errors import InputError
from hvdfilter.filter.sampler import ShardSampler
from tests.agreement.worlds import run_world


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(1, 6), st.integers(0, 2**32))
def test_blocks_together_are_the_mask(num_samples, size, seed):
    keep = np.random.default_rng(seed).random(num_samples) < 0.4
    blocks = Blocks(num_samples, size)

    def body(collective):
        own = keep[blocks.start(collective.rank) : blocks.stop(collective.rank)]
        return merge_local(own, blocks, collective)

    masks = run_world(size, body)
    ids = np.flatnonzero(keep)
    assert np.array_equal(np.concatenate([m.kept_ids() for m in masks]), ids)
    assert np.array_equal(np.concatenate([m.numpy() for m in masks]), keep)
    check = sum(int(mix64(np.array([i + 1], np.uint64))[0]) for i in ids) % 2**64
    for mask in masks:
        assert mask.digest == f"{num_samples:016x}{ids.size:016x}{check:016x}"
        assert mask.count == len(mask) == ids.size
        assert mask.counts.tolist() == [m.kept_ids().size for m in masks]
        own = mask.kept_ids()
        assert np.array_equal(mask.nth(np.arange(own.size)), own)
        assert np.array_equal(mask.kept_ids(10, 50), own[(own >= 10) & (own < 50)])
        assert np.array_equal(np.flatnonzero(mask.contains(np.arange(num_samples))), own)


def test_the_sampler_draws_the_same_from_either_form():
    keep = np.random.default_rng(3).random(500) < 0.5
    blocks, whole = Blocks(500, 3), KeepMask.from_bools(keep)

    def body(collective):
        rank = collective.rank
        mask = merge_local(keep[blocks.start(rank) : blocks.stop(rank)], blocks, collective)
        with pytest.raises(InputError, match="mode='local'"):
            ShardSampler(mask, rank, 3)
        with pytest.raises(InputError, match=f"rank {rank} of 3"):
            ShardSampler(mask, rank, 4, mode="local")
        ours = ShardSampler(mask, rank, 3, mode="local")
        theirs = ShardSampler(whole, rank, 3, mode="local")
        return list(ours) == list(theirs) and ours.weight == theirs.weight

    assert all(run_world(3, body))
