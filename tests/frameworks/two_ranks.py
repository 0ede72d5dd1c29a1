"""One library's loops on a rank of torchrun, which prints what each trained and its weights.

Each yields how many batches made a step, the filter, and the net; what must be refused on every
rank is tried in between.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import hvdfilter as hf
from tests.frameworks.cases import BATCH, SAMPLES, SHARES, Shares, make_net, make_set, weights

EPOCHS = len(SHARES)


class Noting(hf.Filter):
    """Notes the ids that it is given."""

    def __init__(self) -> None:
        super().__init__(SAMPLES, Shares(), epochs=EPOCHS)
        self.given: list[list[int]] = [[] for _ in range(EPOCHS)]

    def loader(self, data: Any = None) -> DataLoader[Any]:
        return DataLoader(hf.Indexed(data or make_set()), BATCH, sampler=self.sampler())

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, ids: Any, *_: Any, **__: Any) -> Any:
        self.given[self.epoch] += ids.tolist()
        return super().loss(logits, labels, ids)


Run = tuple[int, Noting, nn.Module]


def one_short(filt: hf.Filter) -> Any:
    """The set, of which the last rank lacks a sample."""
    return Subset(make_set(), range(SAMPLES - (filt.world.rank == 1)))


def refused(sentence: str, attempt: Callable[[], Any]) -> None:
    """All ranks raise it."""
    try:
        attempt()
    except hf.InputError as error:
        assert sentence in str(error), error
    else:
        raise AssertionError(f"not refused: {sentence}")


SHORT = "rank 1: the training set has 100 samples and the filter was made for 101"


def lightning(folder: str) -> Iterator[Run]:
    import pytorch_lightning as L
    from pytorch_lightning.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    from hvdfilter.adapters.lightning import FilterCallback

    torch.distributed.init_process_group("gloo")

    class Module(L.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, filt: hf.Filter, sharded: bool = False) -> None:
            super().__init__()
            self.net, self.filt, self.sharded = make_net(), filt, sharded

        def configure_model(self) -> None:
            if self.sharded:
                fully_shard(self.net, mesh=self.device_mesh["data_parallel"])
                self.sharded = False

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            ids, x, y = batch
            return self.filt.loss(self.net(x), y, ids)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    def trainer(filt: hf.Filter, *callbacks: Any, **options: Any) -> Any:
        defaults = {"max_epochs": EPOCHS, "strategy": "ddp"}
        return L.Trainer(
            accelerator="cpu", devices=2, logger=False, enable_checkpointing=bool(callbacks),
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            callbacks=[FilterCallback(filt), *callbacks], **defaults | options,
        )  # fmt: skip

    filt = Noting()
    module = Module(filt)
    trainer(filt).fit(module, filt.loader())
    yield 1, filt, module.net

    # A model in shards, from a checkpoint in shards, which is read when all else is set up.
    first, filt = Noting(), Noting()
    saving = L.callbacks.ModelCheckpoint(folder, "{epoch}")
    shards = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    saver = trainer(first, saving, max_epochs=2, strategy=shards)
    saver.fit(Module(first, True), first.loader())
    module = Module(filt, True)
    shards = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    last = f"{folder}/epoch=1.ckpt"
    trainer(filt, strategy=shards).fit(module, filt.loader(), ckpt_path=last)
    assert not any(filt.given[:2])
    filt.given[:2] = first.given[:2]
    whole = make_net()
    for mine, shard in zip(whole.parameters(), module.net.parameters(), strict=True):
        mine.data = shard.full_tensor().detach()  # type: ignore[attr-defined]
    yield 1, filt, whole

    filt = Noting()
    loader = filt.loader(one_short(filt))
    refused(SHORT, lambda: trainer(filt).fit(Module(filt), loader))
    tensors = trainer(filt, strategy=ModelParallelStrategy())  # both ranks hold one model
    refused("2 ranks hold one model in parts", lambda: tensors.fit(Module(filt), loader))
    by_clock = trainer(filt, val_check_interval=timedelta(minutes=15))
    refused("each rank validates by its own clock", lambda: by_clock.fit(Module(filt), loader))


def transformers(folder: str) -> Iterator[Run]:
    from transformers import TrainingArguments

    from hvdfilter.adapters.transformers import FilteredTrainer

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
            return {"logits": self.net(x)}

    def trainer(accumulate: int, data: Callable[[hf.Filter], Any]) -> Any:
        args = TrainingArguments(
            folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=accumulate, use_cpu=True, report_to=[],
            save_strategy="no", disable_tqdm=True, optim="sgd", learning_rate=0.1,
            lr_scheduler_type="constant", max_grad_norm=0,
        )  # fmt: skip
        filt = Noting()
        samples = [{"x": x, "labels": y} for x, y in data(filt)]
        return FilteredTrainer(Net(), args, filt=filt, train_dataset=samples)

    for accumulate in (1, 3):
        made = trainer(accumulate, lambda _: make_set())
        made.train()
        yield accumulate, made.filt, made.model
    refused(SHORT, trainer(1, one_short).train)


def accelerate(folder: str) -> Iterator[Run]:
    from accelerate import Accelerator

    from hvdfilter.adapters.accelerate import prepare

    def train(last: int, after: Noting | None = None) -> tuple[Noting, nn.Module]:
        """All batches before the third of epoch `last`, from where `after` came to."""
        accelerator = Accelerator(cpu=True)
        filt, net = Noting(), make_net()
        model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
        loader = prepare(accelerator, filt.loader(), filt)
        if after is not None:
            accelerator.load_state(folder)
            filt.given = after.given
        for epoch in range(filt.next_epoch, EPOCHS):
            filt.begin_epoch(epoch, optimizer)
            for number, (ids, x, y) in enumerate(loader):
                if (epoch, number) == (last, 2):
                    accelerator.save_state(folder)
                    return filt, net
                accelerator.backward(filt.loss(model(x), y, ids))
                optimizer.step()
                optimizer.zero_grad()
        filt.end_epoch()
        return filt, net

    yield 1, *train(EPOCHS)
    first, _ = train(1)
    yield 1, *train(EPOCHS, first)
    filt = Noting()
    refused(SHORT, lambda: prepare(Accelerator(cpu=True), filt.loader(one_short(filt)), filt))


if __name__ == "__main__":
    for accumulate, filt, net in globals()[sys.argv[1]](sys.argv[2]):
        shown = " ".join(f"{value:.6f}" for value in weights(net).tolist())
        line = f"<{filt.world.rank}|{accumulate}|{filt.given}|{shown}>\n"
        assert len(line) < 4096, "what a pipe takes whole, so that ranks do not mix"
        print(line, end="", flush=True)
    torch.distributed.destroy_process_group()  # its threads must not outlive it
