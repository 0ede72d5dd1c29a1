import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hvdfilter.agreement import Blocks, KeepMask
from hvdfilter.errors import InputError
from hvdfilter.filter.sampler import ShardSampler


def mask_of(num_samples, share, seed=0):
    return KeepMask.from_bools(np.random.default_rng(seed).random(num_samples) < share)


def shards(mask, size, epoch=0, **options):
    result = []
    for rank in range(size):
        sampler = ShardSampler(mask, rank, size, seed=4, **options)
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(sampler)
        result.append(drawn)
    return result


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    st.integers(1, 7),
    st.booleans(),
    st.integers(0, 50),
)
def test_equal_shards_cover_the_kept_samples(num_samples, share, size, shuffle, epoch):
    mask = mask_of(num_samples, share, epoch)
    drawn = shards(mask, size, epoch, shuffle=shuffle)
    assert {len(shard) for shard in drawn} == {-(-mask.count // size)}
    ids, times = np.unique(np.concatenate(drawn), return_counts=True)
    assert np.array_equal(ids, mask.kept_ids())
    if mask.count >= size:  # at most one extra time, and size - 1 samples at most
        assert times.max(initial=1) <= 2 and (times == 2).sum() < size
    elif mask.count:
        assert times.max() - times.min() <= 1
    # a repeat is on a higher rank than the first draw, and last in its shard
    samplers = [ShardSampler(mask, r, size) for r in range(size)]
    assert sum(s.repeated for s in samplers) == (times - 1).sum()


def test_the_repeats_come_last_and_on_higher_ranks():
    drawn = shards(KeepMask.full(10), 4)  # 3 draws a rank: 2 repeats
    assert drawn[2][2] == drawn[0][0] and drawn[3][2] == drawn[1][0]
    assert [ShardSampler(KeepMask.full(10), r, 4).repeated for r in range(4)] == [0, 0, 1, 1]


def test_drop_last_repeats_none_and_ragged_loses_none():
    mask = mask_of(103, 0.5)
    for options in ({"drop_last": True}, {"pad": False}):
        drawn = np.concatenate(shards(mask, 4, **options))
        assert np.unique(drawn).size == drawn.size
        assert set(drawn) <= set(mask.kept_ids())
    assert {len(s) for s in shards(mask, 4, drop_last=True)} == {mask.count // 4}
    ragged = shards(mask, 4, pad=False)
    assert sum(map(len, ragged)) == mask.count
    assert max(map(len, ragged)) - min(map(len, ragged)) <= 1


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    mask = mask_of(1000, 0.64)

    def steps(size):
        drawn = shards(mask, size)
        batch = 24 // size
        return [
            sorted(i for shard in drawn for i in shard[s * batch : (s + 1) * batch])
            for s in range(mask.count // 24)
        ]

    assert steps(1) == steps(2) == steps(3) == steps(4)


def test_order_depends_on_seed_epoch_and_mask_only():
    mask = KeepMask.full(500)

    def order(seed=1, epoch=0, mask=mask):
        sampler = ShardSampler(mask, 0, 2, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order() == order() == list(ShardSampler(mask, 0, 2, 1))
    assert order() != order(seed=2) and order() != order(epoch=1)
    assert sorted(order()) != order()
    assert order(mask=~mask) == []


def test_hidden_samples_in_order():
    mask = mask_of(50, 0.6)
    drawn = shards(~mask, 3, shuffle=False, pad=False)
    assert np.array_equal(np.sort(np.concatenate(drawn)), np.flatnonzero(~mask.numpy()))
    assert all(sorted(shard) == shard for shard in drawn)


@pytest.mark.parametrize("num_samples", [420, 40_000])  # a part of a chunk, several chunks
@pytest.mark.parametrize("consumed", [0, 1, 33, 60])
def test_resumed_equals_uninterrupted(num_samples, consumed):
    mask = mask_of(num_samples, 0.5)
    whole = shards(mask, 3, epoch=2)
    for rank in range(3):
        first = ShardSampler(mask, rank, 3, seed=4)
        first.set_epoch(2)
        walk = iter(first)
        taken = [next(walk) for _ in range(consumed)]
        state = first.state_dict()
        second = ShardSampler(mask, rank, 3, seed=0)
        second.load_state_dict(state)
        second.set_epoch(2)  # what a training loop does next: the place must survive it
        assert len(second) == len(whole[rank]) - consumed
        assert taken + list(second) == whole[rank]
        assert list(second) == whole[rank]  # and afterwards the epoch is whole again


def test_resume_counts_what_was_trained_not_what_was_fetched():
    mask = KeepMask.full(90)
    sampler = ShardSampler(mask, 0, 2, seed=4)
    loader = DataLoader(range(90), batch_size=5, sampler=sampler)
    for step, _batch in enumerate(loader):
        if step == 3:
            break
    resumed = ShardSampler(mask, 0, 2)
    resumed.load_state_dict(sampler.state_dict(consumed=10))
    assert list(resumed) == shards(mask, 2)[0][10:]


def test_a_state_taken_when_all_was_fetched_knows_what_was_trained():
    mask = KeepMask.full(90)
    sampler = ShardSampler(mask, 0, 2, seed=4)
    sampler.load_state_dict(ShardSampler(mask, 0, 2, seed=4).state_dict(consumed=30))
    rest = list(sampler)  # a loader that fetches ahead has drawn everything by now
    resumed = ShardSampler(mask, 0, 2)
    resumed.load_state_dict(sampler.state_dict(consumed=10))
    assert list(resumed) == rest[10:]
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == []


@pytest.mark.parametrize(("before", "after"), [(2, 3), (4, 1), (3, 2)])
def test_resume_on_another_number_of_ranks(before, after):
    mask = mask_of(301, 0.7)
    state = ShardSampler(mask, 0, before, seed=4).state_dict(consumed=20)
    done = np.concatenate([shard[:20] for shard in shards(mask, before)])
    rest = []
    for rank in range(after):
        sampler = ShardSampler(mask, rank, after, seed=4)
        sampler.load_state_dict(state)
        rest.append(list(sampler))
    assert len({len(shard) for shard in rest}) == 1
    left = set(mask.kept_ids()) - set(done)
    ids, times = np.unique(np.concatenate(rest), return_counts=True)
    assert left <= set(ids) and times.sum() - len(left) < after


def test_a_new_epoch_or_mask_starts_at_the_beginning():
    mask = KeepMask.full(30)
    sampler = ShardSampler(mask, 0, 2)
    sampler.load_state_dict(sampler.state_dict(consumed=5))
    assert len(sampler) == 10
    sampler.set_epoch(1)
    assert len(sampler) == 15
    sampler.load_state_dict(sampler.state_dict(consumed=5))
    sampler.set_mask(mask)
    assert len(sampler) == 15


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32))
def test_local_shards_stay_in_their_block(size, seed):
    rng = np.random.default_rng(seed)
    # blocks with very different shares kept
    keep = rng.random(400) < np.repeat(rng.random(8), 50)
    blocks = Blocks(400, size)
    kept = [np.flatnonzero(keep[blocks.start(r) : blocks.stop(r)]) for r in range(size)]
    if min(map(len, kept)) == 0:
        return
    mask = KeepMask.from_bools(keep)
    samplers = [ShardSampler(mask, r, size, mode="local") for r in range(size)]
    assert len({len(s) for s in samplers}) == 1
    length = len(samplers[0])
    assert length == min(max(map(len, kept)), 4 * min(map(len, kept)))
    for rank, sampler in enumerate(samplers):
        ids, times = np.unique(list(sampler), return_counts=True)
        assert set(ids) <= set(kept[rank] + blocks.start(rank))
        assert times.max() - times.min() <= 1 and times.max() <= -(-length // len(kept[rank]))
        assert sampler.repeated == max(0, length - len(kept[rank]))
        # weights make the mean over ranks of weighted means the mean over all kept samples
        assert sampler.weight == pytest.approx(len(kept[rank]) * size / mask.count)


def test_local_weights_leave_the_mean_unbiased():
    keep = np.ones(96, bool)
    keep[:40] = np.arange(40) % 4 == 0  # 10 + 8 kept in the first half, 48 in the second
    mask = KeepMask.from_bools(keep)
    value = np.random.default_rng(0).normal(size=96)
    means = []
    for epoch in range(400):
        shares = []
        for rank in range(2):
            sampler = ShardSampler(mask, rank, 2, mode="local", max_repeats=2)
            sampler.set_epoch(epoch)
            shares.append(sampler.weight * value[list(sampler)].mean())
        means.append(np.mean(shares))
    error = np.mean(means) - value[keep].mean()
    assert abs(error) < 4 * np.std(means) / 20
    assert np.std(means) > 0  # the longer block leaves some out every epoch


def test_local_resume():
    mask = mask_of(300, 0.5)
    sampler = ShardSampler(mask, 1, 3, mode="local")
    whole = list(sampler)
    sampler.load_state_dict(sampler.state_dict(consumed=7))
    assert list(sampler) == whole[7:]
    other = ShardSampler(mask, 0, 2, mode="local")
    with pytest.raises(InputError, match="3 ranks"):
        other.load_state_dict(sampler.state_dict(consumed=7))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 2}, "rank 2 does not exist"),
        ({"mode": "gobal"}, "use global or local"),
        ({"max_repeats": 0}, "at least 1"),
        ({"mode": "local", "mask": KeepMask.from_bools(np.arange(32) < 16)}, "rank 1 has no kept"),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        ShardSampler(**({"mask": KeepMask.full(32), "rank": 0, "size": 2} | options))


def test_a_state_of_another_mask_is_refused():
    state = ShardSampler(KeepMask.full(8), 0, 1).state_dict()
    with pytest.raises(InputError, match="another keep-mask"):
        ShardSampler(KeepMask.full(9), 0, 1).load_state_dict(state)
    with pytest.raises(InputError, match="mode"):
        ShardSampler(KeepMask.full(8), 0, 1, mode="local").load_state_dict(state)
