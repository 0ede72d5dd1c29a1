"""Strata against the law they state, draw by draw."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, Collective, Strata, merge_draws, merge_strata
from hvdfilter.filter.sampler import ShardSampler
from tests.agreement.worlds import run_world

# (times drawn, stratum) of each sample; some strata are empty, some samples are not drawn.
SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60).filter(
    lambda samples: any(times for times, _ in samples)
)


def strata_of(samples: list[tuple[int, int]], collective: Collective) -> Strata:
    blocks = Blocks(len(samples), collective.size)
    mine = samples[blocks.start(collective.rank) : blocks.stop(collective.rank)]
    times = np.array([times for times, _ in mine], np.int64)
    codes = np.array([stratum for _, stratum in mine], np.uint16)
    return merge_strata(merge_draws(times, blocks, collective), codes, collective)


@settings(max_examples=80, deadline=None)
@given(samples=SAMPLES, size=st.integers(1, 4), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_between_two_draws_of_a_stratum_lie_the_others_shares(
    samples: list[tuple[int, int]], size: int, seed: int, epoch: int
) -> None:
    everyone = run_world(size, lambda collective: strata_of(samples, collective))
    assert len({strata.digest for strata in everyone}) == 1
    sequence = everyone[-1].sequence(seed, epoch).tolist()
    wanted = Counter({sample: times for sample, (times, _) in enumerate(samples) if times})
    assert Counter(sequence) == wanted
    parts = np.array([samples[sample][1] for sample in sequence])
    sizes = np.bincount(parts)
    for stratum in np.unique(parts):
        turns = np.flatnonzero(parts == stratum)
        for begin, end in zip(turns, turns[1:], strict=False):
            between = np.bincount(parts[begin + 1 : end], minlength=sizes.size)
            other = np.arange(sizes.size) != stratum
            assert (between >= sizes // sizes[stratum])[other].all()
            assert (between <= -(-sizes // sizes[stratum]))[other].all()


@settings(max_examples=40, deadline=None)
@given(each=st.integers(1, 9), strata=st.integers(1, 7), seed=st.integers(0, 99))
def test_strata_of_one_size_are_taken_in_turn(each: int, strata: int, seed: int) -> None:
    samples = [(1, sample % strata) for sample in range(each * strata)]
    [found] = run_world(1, lambda collective: strata_of(samples, collective))
    sequence = found.sequence(seed, 0) % strata
    turn = sequence[:strata]
    assert sorted(turn) == list(range(strata))
    assert sequence.tolist() == turn.tolist() * each


def test_chance_pairs_the_samples_of_two_strata_anew_each_epoch_and_each_can_begin() -> None:
    samples = [(1, sample % 2) for sample in range(80)]
    [strata] = run_world(1, lambda collective: strata_of(samples, collective))
    epochs = [strata.sequence(3, epoch) for epoch in range(20)]
    pairs = [{frozenset(pair) for pair in sequence.reshape(-1, 2).tolist()} for sequence in epochs]
    # 40 pairs of 1600: two epochs share one by chance.
    assert np.mean([len(a & b) for a, b in zip(pairs, pairs[1:], strict=False)]) < 5
    assert {int(sequence[0] % 2) for sequence in epochs} == {0, 1}


def test_a_global_batch_is_stratified_over_the_ranks_and_places_are_those_that_are_drawn() -> None:
    samples = [(2 if sample < 4 else 1, int(sample >= 4)) for sample in range(12)]  # 8 draws each
    [strata] = run_world(1, lambda collective: strata_of(samples, collective))
    shards = [ShardSampler(strata, rank, 3, seed=5) for rank in range(3)]
    drawn = [shard.ids() for shard in shards]
    assert [len(ids) for ids in drawn] == [6, 6, 6]  # 16 draws and two repeats of the first
    merged = np.stack(drawn, axis=1).reshape(-1)
    assert (np.diff((merged[:16] >= 4).astype(int)) != 0).all()
    for start, stop in ((0, 5), (5, 12)):
        ids, places = shards[0].placed(start, stop)
        assert (
            sorted(places.tolist()) == np.flatnonzero((merged >= start) & (merged < stop)).tolist()
        )
        assert (merged[places] == ids).all()
    resumed = ShardSampler(strata, 1, 2, seed=5)
    resumed.load_state_dict(shards[0].state_dict(consumed=2))  # two of three ranks go on
    rest = sorted([*resumed.ids().tolist(), *_rest(strata, shards[0].state_dict(consumed=2))])
    assert rest == sorted(merged[6:16].tolist())


def _rest(strata: Strata, state: dict) -> list[int]:
    other = ShardSampler(strata, 0, 2, seed=5)
    other.load_state_dict(state)
    return other.ids().tolist()
