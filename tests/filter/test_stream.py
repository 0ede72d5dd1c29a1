"""Sets that can only be iterated: equal shards of the kept samples, whatever the workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import hvdfilter as hf
from hvdfilter.filter.stream import KeptStream
from tests.filter.cases import scored

MASK = hf.KeepMask.from_bools(np.random.default_rng(3).random(101) < 0.6)


class Numbers(IterableDataset):
    def __init__(self, stop: int, step: int = 1) -> None:
        self.stop, self.step = stop, step

    def __iter__(self) -> Iterator[torch.Tensor]:
        for place in range(self.stop):
            yield torch.tensor(place * self.step % self.stop)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_equal_shards_of_the_kept_samples(size: int) -> None:
    kept = MASK.kept_ids().tolist()
    shards = []
    for rank in range(size):
        stream = KeptStream(Numbers(101), MASK, rank, size)
        drawn = list(stream)
        assert all(sample == x for sample, x in drawn)
        assert len(drawn) == len(stream)
        shards.append([sample for sample, _ in drawn])
    assert {len(shard) for shard in shards} == {-(-len(kept) // size)}
    for rank, shard in enumerate(shards):  # the rule, written another way
        expected = kept[rank::size]
        assert shard == expected + expected[:1] * (len(shard) - len(expected))


def test_more_ranks_than_kept_samples() -> None:
    mask = hf.KeepMask.from_bools(np.arange(9) == 4)
    assert [list(KeptStream(range(9), mask, rank, 3)) for rank in range(3)] == [[(4, 4)]] * 3


def test_ids_of_the_samples_own() -> None:
    stream = KeptStream(Numbers(101, step=7), MASK, 0, 1, ids=int)
    drawn = [sample for sample, _ in stream]
    assert sorted(drawn) == MASK.kept_ids().tolist() and drawn != sorted(drawn)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of few cores
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_workers_which_follow_the_mask(workers: int) -> None:
    filt = hf.Filter(101, hf.policies.make("kakurenbo", warmup=1), epochs=30)
    alone, several = (
        DataLoader(
            filt.stream(Numbers(101), batch_size=8),
            batch_size=8,
            num_workers=number,
            persistent_workers=number > 0,
        )
        for number in (0, workers)
    )
    hidden = []
    for epoch in range(3):
        filt.begin_epoch(epoch)
        batches = [ids.tolist() for ids, _ in several]
        assert batches == [ids.tolist() for ids, _ in alone]
        assert len(batches) == len(several)
        trained = [i for batch in batches for i in batch]
        assert trained == filt.mask.kept_ids().tolist()
        assert [i for i in range(101) if filt.keeps(i)] == trained
        assert np.array_equal(filt.keeps(torch.arange(101)), filt.mask.numpy())
        for batch in batches:
            scored(filt, torch.tensor(batch), torch.full((101,), 6.0))
        hidden.append(filt.hidden)
    assert hidden[0] == 0 and hidden[1] > 0


@pytest.mark.parametrize(
    ("length", "sentence"),
    [(90, "the stream held 50 of the 58 samples"), (120, r"gave id 101, outside \[0, 101\)")],
)
def test_a_stream_of_another_length(length: int, sentence: str) -> None:
    with pytest.raises(hf.InputError, match=sentence):
        list(KeptStream(range(length), MASK, 0, 2))
