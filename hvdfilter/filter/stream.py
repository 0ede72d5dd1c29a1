"""KeptStream: this rank's share of the kept samples of a set that can only be iterated.

Every rank reads the whole stream, in the same order, and passes on its own part: what hiding saves
here is training, not reading. It never communicates; the mask reaches worker processes, also those
that outlive an epoch, through shared memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from hvdfilter.agreement import KeepMask
from hvdfilter.data.indexed import KEY, with_id
from hvdfilter.errors import InputError


class KeptStream(IterableDataset[Any]):
    """The kept samples of `dataset` that are this rank's, each with its id as `Indexed` gives it.

    Args:
        dataset: iterable; the same samples in the same order on all ranks.
        mask: of as many samples as the stream has; `set_mask` gives another.
        rank, size: this process and the number of processes.
        batch_size: of the loader; workers then take whole batches by turns, so that batches do not
            depend on their number.
        ids: the id of a sample; by default its place in the stream, which must then never change.
        key: name of the id where a sample has names.

    Kept sample number k of the stream goes to rank ``k % size``. All ranks yield the same number,
    ``ceil(kept / size)``: one that has one less repeats its first. Raises `InputError`, on all
    ranks alike, for an id outside the mask, or a stream that ends with another number of kept
    samples than the mask has.
    """

    def __init__(
        self,
        dataset: Any,
        mask: KeepMask,
        rank: int,
        size: int,
        batch_size: int = 1,
        ids: Callable[[Any], int] | None = None,
        key: str = KEY,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        self.dataset, self.rank, self.size, self.batch_size = dataset, rank, size, batch_size
        self._ids, self._key, self._num_samples = ids, key, mask.num_samples
        self._packed = torch.zeros(mask.packed.size, dtype=torch.uint8).share_memory_()
        self._kept = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.set_mask(mask)

    def set_mask(self, mask: KeepMask) -> None:
        """Yield what another mask keeps, from the next iteration on."""
        self._packed.numpy()[:] = mask.packed
        self._kept[0] = mask.count

    def __len__(self) -> int:
        """Samples of an iteration, over all workers."""
        return -(-int(self._kept) // self.size)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        length, number, turn = len(self), 0, 0
        repeat: tuple[int, Any] | None = None
        for sample, item in self._kept_items():
            mine = number % self.size == self.rank
            if repeat is None or mine and turn == 0:
                repeat = sample, item
            if mine:
                if turn // self.batch_size % workers == worker:
                    yield with_id(sample, item, self._key)
                turn += 1
            number += 1
        if number != int(self._kept):
            raise InputError(
                f"the stream held {number} of the {int(self._kept)} samples to train: it must give "
                f"all {self._num_samples}, each once, on every rank and in every epoch"
            )
        if turn < length and turn // self.batch_size % workers == worker:
            assert repeat is not None
            yield with_id(*repeat, self._key)

    def _kept_items(self) -> Iterator[tuple[int, Any]]:
        """(id, sample) of all that the mask keeps, in the order of the stream."""
        packed = self._packed.numpy()
        for place, item in enumerate(self.dataset):
            sample = place if self._ids is None else int(self._ids(item))
            if not 0 <= sample < self._num_samples:
                raise InputError(
                    f"the stream gave id {sample}, outside [0, {self._num_samples}): Filter was "
                    "told another number of samples"
                )
            if np.uint8(packed[sample >> 3]) >> (sample & 7) & 1:
                yield sample, item
