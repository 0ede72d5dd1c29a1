"""Tally: what an epoch really trained, held against what the mask gave this rank to train.

A framework may put a sampler of its own in the place of `Filter.sampler()`, or shard its draws a
second time; the run then goes on and learns something else than was agreed. Each rank judges by
what it saw, and its verdict travels with the exchange at the epoch's end: nothing here
communicates, and nothing waits for a device before then.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvdfilter.agreement import KeepMask
from hvdfilter.errors import InputError
from hvdfilter.filter.given import mixed_only
from hvdfilter.filter.sampler import ShardSampler

# Rows whose ids wait, on their device, to be looked at together.
_ROWS = 1 << 20
# Rows at the start of an epoch from which a second sharding is recognised.
_HEAD = 1 << 14
# How those who shard on their own are told not to, by the module that shows they are at work.
_REMEDIES = (
    ("transformers", "Hugging Face: hvdfilter.adapters.transformers.FilteredTrainer"),
    ("lightning", "Lightning: Trainer(use_distributed_sampler=False)"),
    ("pytorch_lightning", "Lightning: Trainer(use_distributed_sampler=False)"),
    ("accelerate", "Accelerate: hvdfilter.adapters.accelerate.prepare(accelerator, loader, filt)"),
)


class Tally:
    """Counts what one rank trains in an epoch; `start` begins another.

    samples, batches: trained so far; largest: samples of the largest batch. Told by who notes
    scores: scored, whether any arrived in this epoch, by training or otherwise; withheld, whether
    any was a mixed sample's, and so not noted.
    """

    def __init__(self, mask: KeepMask, sampler: ShardSampler) -> None:
        self._sampler = sampler
        self.start(mask)

    def start(self, mask: KeepMask, epoch: int = -1) -> None:
        """Count from nothing, against `mask`. epoch: that which it opens; -1 opens none."""
        self._mask, self._epoch, self._open = mask, epoch, epoch >= 0
        self.samples = self.batches = self.largest = 0
        self.scored = self.withheld = False
        self._fresh: list[Tensor] = []
        self._waiting = 0
        self._passes = self._sampler.passes
        self._head: NDArray[np.int64] = np.empty(0, np.int64)
        self._hidden = 0
        self._seen: NDArray[np.uint8] | None = None

    def close(self) -> None:
        """The epoch has ended."""
        self._open = False

    def check_open(self) -> None:
        """Raise `InputError` where no epoch is open, as in a loop that begins none."""
        if not self._open:
            done = "has begun" if self._epoch < 0 else f"is open, {self._epoch} has ended"
            raise InputError(
                f"no epoch {done}: call filt.begin_epoch(epoch, optimizer) on all ranks before "
                "each epoch's first batch (under torch.no_grad() nothing is noted, and none needed)"
            )

    def add(self, ids: Tensor) -> None:
        """A batch was trained. ids: int [B], not to be changed afterwards."""
        rows = len(ids)
        self.samples += rows
        self.batches += 1
        self.largest = max(self.largest, rows)
        self._fresh.append(ids)
        self._waiting += rows
        if self._waiting >= _ROWS:
            self._look()

    @property
    def fraction(self) -> float:
        """The share of the epoch that is behind this rank, in [0, 1]."""
        begun, whole = self._sampler.progress
        return min(1.0, (begun + self.samples) / whole) if whole else 1.0

    def fault(self, epoch: int, policy: str, needed: Collection[str]) -> InputError | None:
        """What is wrong with the epoch that ends here, if anything.

        policy: its name, and needed: the scores it chooses by.
        """
        self._look()
        begun, whole = self._sampler.progress
        sentence = None
        if needed and not self.scored and whole > begun:
            if self.withheld:
                return mixed_only(policy, needed)
            return InputError(
                f"epoch {epoch}: no score arrived, and policy {policy} chooses by them: train "
                "with filt.loss(logits, labels, ids), or note the scores of your own loss"
            )
        if self._hidden:
            sentence = (
                f"{self._hidden} of the {self.samples} samples that were trained here are hidden "
                "by the mask: "
            ) + (
                "filt.sampler() was drawn from, but the batches are others, or their iterator was "
                "made before begin_epoch"
                if self._sampler.draws
                else "filt.sampler() was never drawn from, another sampler has taken its place"
            )
        elif (passes := self._sampler.passes - self._passes) > 1 and self.samples >= 2 * whole:
            return InputError(
                f"epoch {epoch}: filt.sampler() was drawn from {passes} times: call "
                "filt.begin_epoch(epoch, optimizer) before each of them"
            )
        elif self._sampler.size > 1:
            if not self._sampler.draws and self._kept_seen() == self._mask.count > whole:
                sentence = (
                    f"one rank trained all {self._mask.count} kept samples by itself, where its "
                    f"share is {whole}: filt.sampler() was never drawn from"
                )
            elif self.samples != self._sampler.draws and self._sharded_again():
                sentence = (
                    f"only one of {self._sampler.size} parts of what filt.sampler() gave was "
                    "trained: it is this rank's shard already, and was sharded a second time"
                )
        return None if sentence is None else InputError(f"epoch {epoch}: {sentence}; {_remedy()}")

    def _look(self) -> None:
        """Bring the waiting ids to the host and count them."""
        if not self._fresh:
            return
        fresh = [torch.as_tensor(ids).reshape(-1) for ids in self._fresh]
        if len({ids.device for ids in fresh}) > 1:
            fresh = [ids.cpu() for ids in fresh]
        self._fresh, self._waiting = [], 0
        ids = torch.cat(fresh).cpu().numpy().astype(np.int64, copy=False)
        ids = ids[(ids >= 0) & (ids < self._mask.num_samples)]  # the others are an error elsewhere
        self._hidden += int(ids.size - np.count_nonzero(self._mask.contains(ids)))
        if self._head.size < _HEAD:
            self._head = np.concatenate([self._head, ids[: _HEAD - self._head.size]])
        if self._sampler.size > 1 and not self._sampler.draws:
            if self._seen is None:
                self._seen = np.zeros_like(self._mask.packed)
            np.bitwise_or.at(self._seen, ids >> 3, np.uint8(1) << (ids & 7).astype(np.uint8))

    def _kept_seen(self) -> int:
        """How many different samples were trained, where the sampler was never drawn from."""
        return 0 if self._seen is None else KeepMask(self._seen, self._mask.num_samples).count

    def _sharded_again(self) -> bool:
        """Whether what was trained is, by its places among the draws, every size-th block of them.

        Blocks of a batch or of one sample, whichever way a loader is sharded. A loop that ends
        early trains the first draws; one that leaves samples out leaves no such pattern, but on
        rank 0, whose part is the first of every round: it relies on the others.
        """
        rank, size = self._sampler.rank, self._sampler.size
        if rank == 0:
            return False
        draws = self._sampler.drawn(size * _HEAD)
        ids, places = np.unique(draws, return_index=True)
        _, first = np.unique(self._head, return_index=True)
        trained = self._head[np.sort(first)]  # each sample where it was trained first
        trained = places[np.searchsorted(ids, trained[np.isin(trained, ids)])]
        block, rest = divmod(int(trained[0]) if trained.size else 0, rank)
        if block == 0 or rest:
            return False
        count = np.arange(trained.size)
        # The last round of blocks may be short, and then be filled up from the first.
        sure = max(1, min(trained.size, draws.size // (size * block) * block))
        expected = (count // block * size + rank) * block + count % block
        return bool(np.array_equal(trained[:sure], expected[:sure]))


def _remedy() -> str:
    """What to change, where a framework that is loaded may be the cause: how to stop it."""
    known = [remedy for module, remedy in _REMEDIES if module in sys.modules]
    return "; ".join(
        ["give the DataLoader sampler=filt.sampler() and let nothing shard it again", *known]
    )
