"""Accelerate: `prepare(accelerator, loader)` gives a loader that is not sharded a second time.

`accelerator.prepare(loader)` hands each rank every P-th batch, and a filter's sampler is one rank's
share already: of P samples that the mask keeps, P - 1 would never be trained.
Models and optimisers are Accelerate's to prepare; schedulers are `filt.schedule`'s.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from hvdfilter.adapters import library
from hvdfilter.errors import InputError
from hvdfilter.filter.stream import KeptStream

_accelerate = library("accelerate", "accelerate.data_loader", "accelerate")


def prepare(accelerator: Any, loader: DataLoader[Any]) -> DataLoader[Any]:
    """`loader` as Accelerate prepares one of a single rank: on its device, its last batch known.

    accelerator: an `accelerate.Accelerator`. loader: draws from `filt.sampler()`, or holds
    `filt.stream(...)`. `accelerator.accumulate` and `clip_grad_norm_` work with it as with any
    other; given to `accelerator.prepare` later, it is left as it is. Raises `InputError` where
    Accelerate spans other ranks than the filter, and would train a model on each of them.
    """
    source: Any = loader.dataset
    if not isinstance(source, KeptStream):
        source = getattr(loader.batch_sampler, "sampler", loader.sampler)
    size = getattr(source, "size", None)
    if size is None:
        raise InputError(
            f"the loader draws from {type(source).__name__}, which is no filter's: "
            "DataLoader(hf.Indexed(dataset), ..., sampler=filt.sampler())"
        )
    if size != accelerator.num_processes:
        raise InputError(
            f"Accelerate trains on {accelerator.num_processes} ranks and the filter spans {size}: "
            "make the Accelerator first, on CPUs as Accelerator(cpu=True), and then the filter"
        )
    prepared = _accelerate.prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=accelerator.device_placement,
        dispatch_batches=False,
    )
    prepared._is_accelerate_prepared = True
    return accelerator.prepare(prepared)
