"""What an epoch trained against what the mask gave: other samplers, second shardings, early ends.

The samplers and loaders are those of torch, Accelerate and Lightning themselves; a rank of several
is only a number to all of them, so they are tried in one process.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

import hvdfilter as hf
from hvdfilter.filter.tally import Tally
from tests.filter.cases import CLASSES, run_epoch, scored

SIZES = [2, 3, 4]
EVERYTHING = hf.KeepMask.full(203)
MASK = hf.KeepMask.from_bools(np.random.default_rng(1).random(203) < 0.7)


def judged(
    batches: Iterable[torch.Tensor], sampler: hf.ShardSampler, mask: hf.KeepMask
) -> hf.InputError | None:
    tally = Tally(mask, sampler)
    for ids in batches:
        tally.add(ids)
    tally.scored = True
    return tally.fault(7, "kakurenbo", {"loss"})


def loader(sampler: Iterable[int], **options: object) -> DataLoader:
    return DataLoader(range(203), 8, sampler=sampler, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_a_shard_trained_in_full_or_in_part_is_in_order(size: int) -> None:
    for rank in range(size):
        for mask in (EVERYTHING, MASK):
            own = hf.ShardSampler(mask, rank, size)
            assert judged(loader(own), own, mask) is None
            assert judged(loader(own, drop_last=True), own, mask) is None
            for end in (1, 2, 3):  # a loop that breaks; the loader may have drawn on
                batches = list(loader(own))[:end]
                assert judged(batches, own, mask) is None
            # A loop that trains some samples of each batch only, by a rule of its own.
            assert judged([ids[ids % 2 == 0] for ids in loader(own)], own, mask) is None
            assert judged([ids[: len(ids) // 2] for ids in loader(own)], own, mask) is None
            # Tokens: each id as often as a sample has rows.
            assert judged([ids.repeat_interleave(3) for ids in loader(own)], own, mask) is None


@pytest.mark.parametrize("size", SIZES)
def test_torchs_distributed_sampler_in_its_place(size: int) -> None:
    for rank in range(size):
        own = hf.ShardSampler(MASK, rank, size)
        theirs = DistributedSampler(range(203), size, rank)  # type: ignore[arg-type]
        error = judged(loader(theirs), own, MASK)
        trained = list(theirs)
        hidden = len(trained) - int(MASK.contains(np.array(trained)).sum())
        assert f"epoch 7: {hidden} of the {len(trained)} samples" in str(error)
        assert "filt.sampler() was never drawn from" in str(error)
        assert "sampler=filt.sampler()" in str(error)
        # Nothing is hidden yet, and all ranks together train everything once: no harm is done.
        own = hf.ShardSampler(EVERYTHING, rank, size)
        assert judged(loader(theirs), own, EVERYTHING) is None


def test_no_sampler_at_all() -> None:
    own = hf.ShardSampler(EVERYTHING, 1, 3)
    error = judged(DataLoader(range(203), 8, shuffle=True), own, EVERYTHING)  # type: ignore[arg-type]
    assert "one rank trained all 203 kept samples by itself, where its share is 68" in str(error)


def test_an_iterator_made_before_the_epoch_began() -> None:
    own = hf.ShardSampler(EVERYTHING, 0, 1)
    stale = list(loader(own))
    own.set_mask(MASK)
    next(iter(own))
    assert "made before begin_epoch" in str(judged(stale, own, MASK))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("split", [False, True])
def test_accelerates_second_sharding(size: int, split: bool) -> None:
    prepare = pytest.importorskip("accelerate.data_loader").prepare_data_loader
    for rank in range(size):
        own = hf.ShardSampler(MASK, rank, size)
        plain = DataLoader(range(203), 4 * size if split else 4, sampler=own)  # type: ignore[arg-type]
        theirs = prepare(plain, num_processes=size, process_index=rank, split_batches=split)
        error = str(judged(theirs, own, MASK))
        if rank == 0:  # it may as well be a loop that trains the first half of every batch
            assert error == "None"
            continue
        assert f"only one of {size} parts" in error and "sharded a second time" in error
        assert (
            "Accelerate: hvdfilter.adapters.accelerate.prepare(accelerator, loader, filt)" in error
        )


@pytest.mark.parametrize("size", SIZES)
def test_lightnings_second_sharding(size: int) -> None:
    wrappers = pytest.importorskip("lightning.fabric.utilities.distributed")
    for rank in range(size):
        own = hf.ShardSampler(MASK, rank, size)
        theirs = wrappers.DistributedSamplerWrapper(
            own, num_replicas=size, rank=rank, shuffle=False
        )
        error = str(judged(loader(theirs), own, MASK))
        if rank == 0:
            assert error == "None"
            continue
        assert f"only one of {size} parts" in error
        assert "use_distributed_sampler=False" in error


def test_an_epoch_without_scores() -> None:
    filt = hf.Filter(40, "kakurenbo", epochs=4)
    filt.begin_epoch(0)
    list(filt.sampler())
    with pytest.raises(hf.InputError, match="epoch 0: no score arrived, and policy kakurenbo"):
        filt.begin_epoch(1)
    own = hf.Filter(40, "kakurenbo", epochs=4)
    for epoch in range(2):  # scores from elsewhere will do, also those that have been exchanged
        own.begin_epoch(epoch)
        ids = torch.arange(40)
        own.book.observe(ids, {"loss": ids.float(), "confidence": ids / 40, "correct": ids > 3})
        own.settle()
    random = hf.Filter(40, "random", epochs=4)  # which chooses by none
    for epoch in range(3):
        random.begin_epoch(epoch)


def test_a_hidden_sample_that_is_trained_ends_the_epoch_and_one_that_is_scored_does_not() -> None:
    gap = torch.full((100,), 6.0)
    filt = hf.Filter(100, hf.policies.make("kakurenbo", warmup=1), epochs=30)
    run_epoch(filt, 0, gap)
    run_epoch(filt, 1, gap)  # scores the hidden ones
    run_epoch(filt, 2, gap)
    hidden = torch.tensor(list(filt.hidden_sampler()))
    assert len(hidden)
    with torch.no_grad():  # a validation step
        scored(filt, hidden, gap)
    filt.settle()
    scored(filt, hidden[:3], gap)
    with pytest.raises(hf.InputError, match="epoch 2: 3 of the .* trained here are hidden"):
        filt.end_epoch()


def test_a_run_resumed_at_an_epochs_end_trains_nothing_more_of_it() -> None:
    first, again = (hf.Filter(40, "kakurenbo", epochs=4) for _ in range(2))
    run_epoch(first, 0, torch.ones(40))
    again.load_state_dict(first.state_dict())
    assert list(again.sampler()) == []
    again.begin_epoch(1)


def test_a_rescoring_loader_built_once_follows_the_mask() -> None:
    gap = torch.where(torch.arange(100) < 40, 6.0, 0.1)
    filt = hf.Filter(100, hf.policies.make("kakurenbo", warmup=1), epochs=90)
    batches = DataLoader(range(100), 16, sampler=filt.hidden_sampler())  # type: ignore[arg-type]
    seen = []
    for epoch in range(4):
        run_epoch(filt, epoch, gap, rescore=False)
        seen.append(sorted(int(i) for ids in batches for i in ids))
        assert seen[-1] == sorted(set(range(100)) - set(filt.mask.kept_ids().tolist()))
        for ids in batches:  # a second pass in the epoch gives the same
            filt.note(torch.eye(CLASSES)[ids % CLASSES] * 6.0, ids % CLASSES, ids)
    assert seen[0] == [] and len(seen[1]) == 30 and seen[3] != []
