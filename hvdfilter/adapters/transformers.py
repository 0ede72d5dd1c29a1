"""Hugging Face: `FilteredTrainer(filt=filt, ...)` is a Trainer that trains what a filter keeps.

Left alone, a Trainer shards the loader again, drops the ids, and plans the steps of every epoch and
of its schedule by the length that it finds at the start. Here loader, loss, steps and schedule
follow the filter; what cannot follow is refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hvdfilter.adapters import library
from hvdfilter.data import Indexed
from hvdfilter.errors import InputError, InstallError
from hvdfilter.filter import Filter

_transformers = library("transformers", "transformers")
_IDS = "ids"


class FilteredTrainer(_transformers.Trainer):  # type: ignore[name-defined]
    """A Trainer whose training set is filtered; arguments are the Trainer's, and `filt`.

    filt: made for ``num_train_epochs`` epochs and ``len(train_dataset)`` samples, after the
    `TrainingArguments`, which let the ranks meet. The loss is `filt.loss` of the model's logits and
    the batch's labels, shifted for a causal language model; another one is made in `sample_loss`.

    Raises `InputError`, before training, for what the filter cannot follow: ``max_steps``,
    ``compute_loss_func``, a set without a length, and going on from a checkpoint, whose place the
    Trainer reckons in epochs of full length.
    """

    def __init__(self, *args: Any, filt: Filter, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filt = filt
        self._refuse()
        # The loss is a batch's mean, which the Trainer then divides by the batches of a step.
        self.model_accepts_loss_kwargs = False

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
        labels = inputs["labels"]
        network = self.accelerator.unwrap_model(model)
        config = getattr(network, "config", None)
        if not getattr(config, "is_encoder_decoder", False):  # which reads the labels
            inputs = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**inputs)
        logits = _logits(outputs)
        if _is_causal(network):
            logits, labels = logits[:, :-1], labels[:, 1:]
        loss = self.sample_loss(logits, labels, ids)
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

    def _refuse(self) -> None:
        args, filt = self.args, self.filt
        if not hasattr(_transformers.Trainer, "_run_epoch"):
            raise InstallError(
                f"hvdfilter.adapters.transformers needs transformers 5.23 or newer, and "
                f"{_transformers.__version__} is installed: pip install -U transformers"
            )
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


class _WithIds:
    """A collator of items with ids, around one that knows of none."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([item[_IDS] for item in items])
        plain = [{name: item[name] for name in item if name != _IDS} for item in items]
        return {**self._collate(plain), _IDS: ids}


def _logits(outputs: Any) -> Tensor:
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    return logits if isinstance(logits, Tensor) else logits[0]


def _is_causal(network: Any) -> bool:
    names = _transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return type(network).__name__ in set(names.values())
