"""Lightning: `Trainer(callbacks=[FilterCallback(filt)])` trains what a filter keeps.

Left alone, Lightning puts a sampler of its own in the place of `filt.sampler()`, and plans
validation, the last batch and schedules by the length that an epoch had in full. Here they follow
the epoch that begins; what cannot follow is refused in a sentence before anything is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from hvdfilter.adapters import check_length, check_whole, library, require
from hvdfilter.errors import InputError
from hvdfilter.filter import Filter
from hvdfilter.filter.schedule import Schedule
from hvdfilter.filter.stream import KeptStream

_lightning = library("lightning", "lightning.pytorch", "pytorch_lightning")
# Of its loop, leant on and not documented.
_MEMBERS = ("setup_data", "max_batches", "_combined_loader", "_data_fetcher")


class FilterCallback(_lightning.Callback):  # type: ignore[name-defined]
    """Begins and ends the epochs of `filt` with those of a Trainer.

    The training loader is ``DataLoader(hf.Indexed(dataset), ..., sampler=filt.sampler())``, and
    ``training_step`` returns ``filt.loss(...)`` or ``filt.update(...)``. Optimisers are attached,
    and schedulers of ``interval="step"`` end with the run. Checkpoints hold the filter's state; a
    run goes on from one that was saved at an epoch's end.

    Raises `InputError`, before training, for another sampler, a set of another length or more
    epochs than the filter's, a Trainer of other ranks, a checkpoint of an epoch's middle, and
    validation by the clock on several ranks.
    """

    def __init__(self, filt: Filter) -> None:
        super().__init__()
        self.filt = filt
        self._saved: Mapping[str, Any] | None = None
        self._begun = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a Trainer that the filter cannot follow."""
        self._saved = None  # what a validation before has read is not to be trained from
        if stage != "fit":
            return
        require("lightning", _lightning, trainer, "_val_check_time_interval")
        require("lightning", _lightning, trainer.fit_loop, *_MEMBERS)
        epochs, ranks = self.filt.epochs, self.filt.world.size
        if trainer.max_epochs is None or not 0 <= trainer.max_epochs <= epochs:
            raise InputError(
                f"the filter was made for {epochs} epochs: Trainer(max_epochs={epochs}), not "
                f"{trainer.max_epochs}"
            )
        if trainer.world_size != ranks:
            raise InputError(
                f"Lightning trains on {trainer.world_size} ranks and the filter spans {ranks}: "
                "start by torchrun and call torch.distributed.init_process_group() before hf.Filter"
            )
        check_whole(ranks // (trainer.distributed_sampler_kwargs or {}).get("num_replicas", ranks))
        if trainer._val_check_time_interval is not None and ranks > 1:
            raise InputError(
                "with a val_check_interval of time each rank validates by its own clock, and ranks "
                "that differ wait for each other for ever: give it batches, or a part of an epoch"
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the optimisers and schedulers."""
        trainer.fit_loop.setup_data()  # which Lightning does once, here or a little later
        with self.filt.world.collective.errors_shared():
            loader = self._loader(trainer)
            require("lightning", _lightning, trainer, "val_check_batch")
            require("lightning", _lightning, trainer.fit_loop._combined_loader, "limits")
            check_length(loader.dataset, self.filt)
        for optimizer in trainer.optimizers:
            self.filt.attach(optimizer)
        for config in trainer.lr_scheduler_configs:
            if (
                config.interval == "step"
                and not config.reduce_on_plateau
                and not isinstance(config.scheduler, Schedule)
                and pl_module.automatic_optimization
            ):
                config.scheduler = self.filt.schedule(
                    config.scheduler, _Steps(trainer, loader, config.frequency)
                )
        self._begun = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take up what a checkpoint held, which strategies that shard models read only now."""
        if self._saved is None:
            return
        if not self._saved["between"]:
            raise InputError(
                "this checkpoint was saved within an epoch, where Lightning starts the loader "
                "anew: go on from one that ModelCheckpoint(save_on_train_epoch_end=True) saved"
            )
        # Lightning reads the file on every rank; what rank 0 holds counts.
        self.filt.load_state_dict(self._saved["filter"] if self.filt.world.rank == 0 else {})
        self._saved = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Agree on the epoch's mask; its length is from now on Lightning's too."""
        loader, loop = self._loader(trainer), trainer.fit_loop
        self.filt.begin_epoch(trainer.current_epoch)
        batches = _limited(trainer, loader)
        loop._combined_loader.limits = [batches]
        loop.max_batches = batches
        if trainer._val_check_time_interval is not None:
            pass  # no batch is one to validate at
        elif isinstance(interval := trainer.val_check_interval, float):
            trainer.val_check_batch = max(1, int(batches * interval))
        elif trainer.check_val_every_n_epoch is not None:
            trainer.val_check_batch = min(interval, batches)
        if not self._begun:  # Lightning's iterator of the first epoch is older than its mask
            iter(loop._data_fetcher)
            self._begun = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End the epoch, before a checkpoint of it is saved."""
        self.filt.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Collective. The filter's state, and whether it was saved at an epoch's end."""
        between = self.filt.next_epoch != self.filt.epoch
        return {"between": between, "filter": self.filt.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._saved = state_dict

    def _loader(self, trainer: Any) -> DataLoader[Any]:
        """The training loader; `InputError` where it does not draw from the filter."""
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise InputError(
                f"FilterCallback needs one DataLoader to train from, not {type(loader).__name__}"
            )
        if isinstance(loader.dataset, KeptStream):
            return loader
        sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
        if sampler is not self.filt.sampler():
            raise InputError(
                f"Lightning draws from {type(sampler).__name__} in the place of filt.sampler(): "
                "DataLoader(..., sampler=filt.sampler()) and Trainer(use_distributed_sampler=False)"
            )
        return loader


class _Steps:
    """How often Lightning steps a scheduler in the epoch that has begun."""

    def __init__(self, trainer: Any, loader: DataLoader[Any], frequency: int) -> None:
        self._trainer, self._loader, self._frequency = trainer, loader, frequency

    def __call__(self) -> int:
        batches, every = _limited(self._trainer, self._loader), self._frequency
        accumulate = self._trainer.accumulate_grad_batches
        steps = batches // math.lcm(accumulate, every)
        # The last batch makes a step in any case.
        return steps + (batches % accumulate > 0 and batches % every == 0)


def _limited(trainer: Any, loader: DataLoader[Any]) -> int:
    """Batches of an epoch, by what `limit_train_batches` says."""
    limit, batches = trainer.limit_train_batches, len(loader)
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)
