"""`to_device`: batches on the device they are computed on, the next one copied meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from hvdfilter.data.loader import Batch


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with x and y on `device`, in their order; ids stay where they are.

    On a GPU each is copied, from pinned memory, on a stream of its own while the one before is
    computed: a batch more is held than without.
    """
    return _ahead(batches, device) if device.type == "cuda" else _moved(batches, device)


def _moved(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    for ids, x, y in batches:
        yield ids, x.to(device), y.to(device)


def _ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    copies = torch.cuda.Stream(device)
    coming: Batch | None = None
    for ids, x, y in batches:
        with torch.cuda.stream(copies):
            sent = ids, x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        if coming is not None:
            yield coming
        # What is computed with the batch from here on waits for its copy, and no copy of a later
        # one may take its memory before that is done.
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copies)
        for part in sent[1:]:
            part.record_stream(computing)
        coming = sent
    if coming is not None:
        yield coming
