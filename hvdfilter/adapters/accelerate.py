"""Accelerate: `prepare(accelerator, loader, filt)` gives a loader that is sharded once.

`accelerator.prepare(loader)` hands each rank every P-th batch, and a filter's sampler is one rank's
share already: of P samples that the mask keeps, P - 1 would never be trained.
Models and optimisers are Accelerate's to prepare; schedulers are `filt.schedule`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from hvdfilter.adapters import check_length, check_whole, library, unknown_release
from hvdfilter.errors import InputError
from hvdfilter.filter import Filter
from hvdfilter.filter.stream import KeptStream
from hvdfilter.training import checkpoint

_accelerate = library("accelerate", "accelerate.data_loader", "accelerate")
_STEM = "hvdfilter"


def prepare(accelerator: Any, loader: DataLoader[Any], filt: Filter) -> DataLoader[Any]:
    """`loader` as Accelerate prepares one of a single rank: on its device, its last batch known.

    Collective. accelerator: an `accelerate.Accelerator`. loader: draws from `filt.sampler()`, or
    holds `filt.stream(...)`. `accelerator.accumulate` and `clip_grad_norm_` work with it as with
    any other; given to `accelerator.prepare` later, it is left as it is.

    `accelerator.save_state` and `load_state`, called on all ranks, then save and restore the filter
    too, also within an epoch: go on by ``range(filt.next_epoch, epochs)``, skipping no batches.

    Raises `InputError`, on every rank, where Accelerate spans other ranks than the filter, and
    would train a model on each of them, and for a loader that is not this filter's.
    """
    with filt.world.collective.errors_shared():
        _check(accelerator, loader, filt)
    prepared = _accelerate.prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=accelerator.device_placement,
        dispatch_batches=False,
    )
    prepared._is_accelerate_prepared = True
    if accelerator.prepare(prepared) is not prepared:
        raise unknown_release("accelerate", _accelerate, "'_is_accelerate_prepared' of a loader")
    state = _State(filt, isinstance(loader.dataset, KeptStream))
    accelerator.register_save_state_pre_hook(state.save)
    accelerator.register_load_state_pre_hook(state.load)
    return prepared


def _check(accelerator: Any, loader: DataLoader[Any], filt: Filter) -> None:
    ranks, source = filt.world.size, loader.dataset
    if accelerator.num_processes != ranks:
        raise InputError(
            f"Accelerate trains on {accelerator.num_processes} ranks and the filter spans {ranks}: "
            "make the Accelerator first, on CPUs as Accelerator(cpu=True), and then the filter"
        )
    parallel = getattr(accelerator, "parallelism_config", None)
    check_whole(getattr(parallel, "non_data_parallel_size", 1))
    if isinstance(source, KeptStream):
        return
    check_length(source, filt)
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if sampler is not filt.sampler():
        raise InputError(
            f"the loader draws from {type(sampler).__name__}, which is not this filter's: "
            "DataLoader(hf.Indexed(dataset), ..., sampler=filt.sampler())"
        )


class _State:
    """A filter beside what Accelerate saves, in a file of its own, since Accelerate's unpickle."""

    def __init__(self, filt: Filter, streamed: bool) -> None:
        self._filter, self._streamed = filt, streamed

    def save(self, models: Any, weights: Any, folder: str) -> None:
        """Collective."""
        # The loader fetches a batch ahead, so what was drawn is more than what was trained; a
        # stream begins its epoch again.
        state = self._filter.state_dict(0 if self._streamed else self._filter.samples)
        world = self._filter.world
        with world.collective.errors_shared():
            if world.rank == 0:
                old = self._files(folder)
                new = checkpoint.write(Path(folder), _STEM, *checkpoint.encode(state), "make room")
                for path in old:
                    if path != new:
                        path.unlink()

    def load(self, models: Any, folder: str) -> None:
        """Collective. What rank 0 reads counts."""
        world, state = self._filter.world, {}
        with world.collective.errors_shared():
            if world.rank == 0:
                found = self._files(folder)
                if len(found) != 1:
                    raise InputError(
                        f"{folder} holds {len(found)} states of a filter in place of one: it must "
                        "be saved after hvdfilter.adapters.accelerate.prepare, for one filter"
                    )
                state = checkpoint.decode(checkpoint.read(found[0]), found[0])
        self._filter.load_state_dict(state)

    @staticmethod
    def _files(folder: str) -> list[Path]:
        return sorted(Path(folder).glob(f"{_STEM}.*{checkpoint.SUFFIX}"))
