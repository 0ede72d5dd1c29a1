"""`make_loader`: batches of (ids, x, y) from an `Images` set, gathered whole, never item by item.

The order is the sampler's alone, so two runs with the same sampler give the same batches whatever
the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from hvdfilter.data.images import Images
from hvdfilter.data.workers import Workers, start_helpers

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _Batches(Dataset[Batch]):
    """Asked for a list of ids, answers with the finished batch."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, ids: list[int]) -> Batch:
        x, y = self.images.batch(ids)
        return torch.tensor(ids, dtype=torch.int64), x, y


def make_loader(
    images: Images,
    sampler: Sampler[int] | Sequence[int],
    batch_size: int,
    num_workers: int | None = None,
) -> DataLoader[Batch]:
    """A DataLoader of (ids int64 [B], x uint8 [B, C, H, W], y int64 [B]).

    The last batch may be smaller. Host memory is pinned where there is a CUDA device. Workers are
    used only for sets that read or decode on access: one that lies in memory is gathered faster
    than a batch can be sent between processes. None takes `spare_cores()`. They import the main
    script anew, which therefore needs its `if __name__ == "__main__":`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    assert isinstance(sampler, Sized), "the sampler needs a length: ranks must agree on the steps"
    workers = spare_cores() if num_workers is None else num_workers
    if images.in_memory:
        workers = 0
    options: dict[str, Any] = {}
    if workers > 0:
        # Not fork: by now MPI and Horovod have threads and registered memory, and a forked copy of
        # those corrupts or hangs. The fork server is started fresh and never touches MPI.
        context = Workers()
        context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
        start_helpers()
        options = {
            "multiprocessing_context": context,
            "persistent_workers": True,
        }
    return DataLoader(
        _Batches(images),
        sampler=BatchSampler(sampler, batch_size, drop_last=False),
        batch_size=None,  # the data set returns whole batches
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # Loading draws nothing at random, yet a DataLoader without its own generator takes its
        # workers' base seed from torch's global stream and so shifts the model's randomness.
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def spare_cores() -> int:
    """Cores of this rank that have nothing to compute, at most 8.

    Beside a GPU all but two, one for this process and one for Horovod's thread; on a CPU none, for
    what a worker decodes there is taken from the threads that train.
    """
    if not torch.cuda.is_available():
        return 0
    return min(8, max(1, torch.get_num_threads() - 2))
