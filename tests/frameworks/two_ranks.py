"""One library's loop on a rank of torchrun, which prints what it trained and its weights."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import hvdfilter as hf
from tests.frameworks.cases import BATCH, SAMPLES, SHARES, Shares, make_net, make_set, weights

EPOCHS = len(SHARES)


class Noting(hf.Filter):
    """Notes the ids that it is given."""

    def __init__(self) -> None:
        super().__init__(SAMPLES, Shares(), epochs=EPOCHS)
        self.given: list[list[int]] = [[] for _ in range(EPOCHS)]

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, ids: Any, *_: Any, **__: Any) -> Any:
        self.given[self.epoch] += ids.tolist()
        return super().loss(logits, labels, ids)


def lightning() -> tuple[Noting, torch.nn.Module]:
    import pytorch_lightning as L

    from hvdfilter.adapters.lightning import FilterCallback

    torch.distributed.init_process_group("gloo")
    filt, net = Noting(), make_net()

    class Module(L.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            ids, x, y = batch
            return filt.loss(self.net(x), y, ids)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=EPOCHS, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[FilterCallback(filt)],
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(hf.Indexed(make_set()), BATCH, sampler=filt.sampler()))
    return filt, net


def transformers() -> tuple[Noting, torch.nn.Module]:
    from transformers import TrainingArguments

    from hvdfilter.adapters.transformers import FilteredTrainer

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
            return {"logits": self.net(x)}

    args = TrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH,
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    filt, net = Noting(), Net()
    samples = [{"x": x, "labels": y} for x, y in make_set()]
    FilteredTrainer(net, args, filt=filt, train_dataset=samples).train()
    return filt, net


def accelerate() -> tuple[Noting, torch.nn.Module]:
    from accelerate import Accelerator

    from hvdfilter.adapters.accelerate import prepare

    accelerator = Accelerator(cpu=True)
    filt, net = Noting(), make_net()
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    data = hf.Indexed(make_set())
    loader = prepare(accelerator, DataLoader(data, BATCH, sampler=filt.sampler()))
    for epoch in range(EPOCHS):
        filt.begin_epoch(epoch, optimizer)
        for ids, x, y in loader:
            accelerator.backward(filt.loss(model(x), y, ids))
            optimizer.step()
            optimizer.zero_grad()
    filt.end_epoch()
    return filt, net


def alone() -> torch.Tensor:
    """The weights of plain SGD by torch alone: each step, the mean of both ranks' batches."""
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = make_set().tensors
    filt = hf.Filter(SAMPLES, Shares(), epochs=EPOCHS)
    for epoch in range(EPOCHS):
        mask = filt.begin_epoch(epoch)
        shards = []
        for rank in range(2):
            sampler = hf.ShardSampler(mask, rank, 2)
            sampler.set_epoch(epoch)
            shards.append(torch.tensor(list(sampler)).split(BATCH))
        for batches in zip(*shards, strict=True):
            optimizer.zero_grad()
            sum(F.cross_entropy(net(x[ids]), y[ids]) / 2 for ids in batches).backward()
            optimizer.step()
    return weights(net)


if __name__ == "__main__":
    filt, net = globals()[sys.argv[1]]()
    shown = " ".join(f"{value:.6f}" for value in weights(net).tolist())
    print(f"<{filt.world.rank}|{filt.given}|{shown}>", flush=True)
