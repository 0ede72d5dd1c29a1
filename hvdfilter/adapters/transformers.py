"""Hugging Face: `FilteredTrainer(filt=filt, ...)` is a Trainer that trains what a filter keeps.

Left alone, a Trainer shards the loader again, drops the ids, and plans the steps of every epoch and
of its schedule by the length that it finds at the start. Here loader, loss, steps and schedule
follow the filter; what cannot follow is refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from hvdfilter.adapters import check_length, check_whole, library, own_loss, require
from hvdfilter.data import Indexed
from hvdfilter.errors import InputError
from hvdfilter.filter import Filter

_transformers = library("transformers", "transformers")
_IDS = "ids"
# What is leant on and not documented: of the class, and of its instances.
_MEMBERS = (
    "_run_epoch",
    "_remove_unused_columns",
    "_get_collator_with_removed_columns",
    "loss_is_scaled_for_ga",
)
_OWN_MEMBERS = ("_train_batch_size", "model_accepts_loss_kwargs")


class FilteredTrainer(_transformers.Trainer):  # type: ignore[name-defined]
    """A Trainer whose training set is filtered; arguments are the Trainer's, and two more.

    filt: made for ``num_train_epochs`` epochs and ``len(train_dataset)`` samples, after the
    `TrainingArguments`, which let the ranks meet. The loss is `filt.loss` of the model's logits and
    the batch's labels, and a mixture of experts' ``aux_loss``; another one is made in
    `sample_loss`. shift_labels: whether a token's label is its successor's; None is to find out
    from the loss that the model computes of the first batch; with an own `sample_loss` say it.

    Raises `InputError`, before training, for what the filter cannot follow: ``max_steps``,
    ``compute_loss_func``, a set that can only be iterated or is of another length than the
    filter's, and going on from a checkpoint, whose place the Trainer reckons in epochs of full
    length; and at the first batch, on every rank, for a model whose own loss is another one.
    """

    # The loss is a batch's mean, which the Trainer then divides by the batches of a step.
    loss_is_scaled_for_ga = False

    def __init__(
        self, *args: Any, filt: Filter, shift_labels: bool | None = None, **kwargs: Any
    ) -> None:
        _require()
        super().__init__(*args, **kwargs)
        self.filt = filt
        self._refuse()
        require("transformers", _transformers, self, *_OWN_MEMBERS)
        self.model_accepts_loss_kwargs = False  # else the Trainer counts tokens for nothing
        free = type(self).sample_loss is not FilteredTrainer.sample_loss
        self._meaning = own_loss.Meaning(filt.world.collective, shift_labels, free)

    def sample_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """The loss of a batch: `filt.loss`, or `filt.update` of losses of your own."""
        return self.filt.loss(logits, labels, ids, label_smoothing=self.args.label_smoothing_factor)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, from the start; ends the filter's last epoch."""
        if resume_from_checkpoint:
            raise InputError(
                "FilteredTrainer cannot resume_from_checkpoint, for the Trainer reckons its place "
                "in epochs of full length: train anew, or by a loop of your own and hf.Record"
            )
        with self.filt.world.collective.errors_shared():
            self._check_set()
        result = super().train(None, *args, **kwargs)
        self.filt.end_epoch()
        return result

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's shard of what the filter keeps, each batch with its ids."""
        args, dataset, collate = self.args, self.train_dataset, self.data_collator
        if isinstance(dataset, Indexed):
            dataset = dataset.dataset
        if hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, "training")
        else:
            collate = self._get_collator_with_removed_columns(collate, "training")
        workers = args.dataloader_num_workers
        self._loader: DataLoader[Any] = DataLoader(
            Indexed(dataset, _IDS),
            self._train_batch_size,
            sampler=self.filt.sampler(),
            collate_fn=_WithIds(collate),
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            drop_last=args.dataloader_drop_last,
            prefetch_factor=args.dataloader_prefetch_factor if workers else None,
            persistent_workers=args.dataloader_persistent_workers,
        )
        self._full = self._steps()
        return self._loader

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's scheduler, which reaches its end although epochs are shorter."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = self.filt.schedule(scheduler, self._steps)
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """`sample_loss` in training, where a batch has ids; else the Trainer's."""
        ids = inputs.pop(_IDS, None)
        if ids is None:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        labels: Any = inputs.get("labels")
        meaning = self._meaning
        network = self.accelerator.unwrap_model(model)
        read = getattr(getattr(network, "config", None), "is_encoder_decoder", False)
        if not read and not meaning.asks(network):
            inputs = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**inputs)
        if meaning.shift is None:
            meaning.learn(outputs, labels, network)
        logits, _, extra = own_loss.read(outputs, network)
        if meaning.shift:
            logits, labels = own_loss.shifted(logits, labels)
        loss = self.sample_loss(logits, labels, ids)
        if extra is not None:
            loss = loss + extra.to(loss.device)
        return (loss, outputs) if return_outputs else loss

    def _run_epoch(self, *args: Any, epoch: int, **planned: Any) -> None:
        """An epoch of the Trainer's, of as many steps as the filter's mask makes it."""
        self.filt.begin_epoch(epoch, self.optimizer)
        steps, later = self._steps(), self.filt.epochs - epoch - 1
        self.state.max_steps = self.state.global_step + steps + later * self._full
        planned |= {"steps_in_epoch": len(self._loader), "num_update_steps_per_epoch": steps}
        super()._run_epoch(*args, epoch=epoch, **planned)

    def _steps(self) -> int:
        """Optimiser steps of the epoch that has begun."""
        return max(1, -(-len(self._loader) // self.args.gradient_accumulation_steps))

    def _check_set(self) -> None:
        dataset = self.train_dataset
        if isinstance(dataset, IterableDataset):
            raise InputError(
                f"FilteredTrainer draws by filt.sampler(), and {type(dataset).__name__} can only "
                "be iterated: filt.stream takes it, under Accelerate or in a loop of your own"
            )
        check_length(dataset, self.filt)

    def _refuse(self) -> None:
        args, filt = self.args, self.filt
        if args.max_steps > 0 or args.num_train_epochs != filt.epochs:
            raise InputError(
                f"the filter was made for {filt.epochs} epochs: TrainingArguments("
                f"num_train_epochs={filt.epochs}) without max_steps, not {args.num_train_epochs} "
                f"epochs and max_steps={args.max_steps}"
            )
        if self.compute_loss_func is not None:
            raise InputError(
                "compute_loss_func is not told which samples it is given: make the loss in "
                "sample_loss(logits, labels, ids) of a class derived from FilteredTrainer"
            )
        if args.world_size != filt.world.size:
            raise InputError(
                f"the Trainer runs on {args.world_size} ranks and the filter spans "
                f"{filt.world.size}: start by torchrun and make the TrainingArguments first, "
                "on CPUs with use_cpu=True, and then the filter"
            )
        check_whole(self.get_tp_size() * self.get_cp_size() * self.get_sp_size())


class _WithIds:
    """A collator of items with ids, around one that knows of none."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([item[_IDS] for item in items])
        plain = [{name: item[name] for name in item if name != _IDS} for item in items]
        return {**self._collate(plain), _IDS: ids}


def _require() -> None:
    trainer = _transformers.Trainer
    require("transformers", _transformers, trainer, *_MEMBERS)
    planned = "epoch", "steps_in_epoch", "num_update_steps_per_epoch"
    require("transformers", _transformers, trainer._run_epoch, *planned)
