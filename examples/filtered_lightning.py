"""Lightning, alone or by `torchrun --nproc_per_node 2 filtered_lightning.py`.

Lightning's loop asks the callback for each epoch's mask; validation, and a scheduler that counts
steps, follow the epoch's length.
"""

import argparse

import pytorch_lightning as L
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import hvdfilter as hf
from hvdfilter.adapters.lightning import FilterCallback

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

if dist.is_torchelastic_launched():  # before the filter, which spans the ranks
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
y = torch.tensor(labels)
train_set, test_set = TensorDataset(x[:1437], y[:1437]), TensorDataset(x[1437:], y[1437:])
filt = hf.Filter(len(train_set), policy="kakurenbo", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 32, sampler=filt.sampler())


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 36, 10),
        )  # fmt: skip

    def training_step(self, batch, _):
        ids, images, targets = batch
        return filt.loss(self.layers(images), targets, ids)

    def validation_step(self, batch, _):
        images, targets = batch
        found = self.layers(images).argmax(1)
        self.log("accuracy", (found == targets).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        steps = self.trainer.estimated_stepping_batches  # of epochs in full
        scheduler = OneCycleLR(optimizer, 0.05, total_steps=steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


L.seed_everything(0)
trainer = L.Trainer(
    max_epochs=epochs,
    devices=filt.world.size,
    callbacks=[FilterCallback(filt)],
    use_distributed_sampler=False,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Net(), loader, DataLoader(test_set, 360))
if trainer.is_global_zero:
    accuracy, rate = (
        trainer.callback_metrics["accuracy"],
        trainer.optimizers[0].param_groups[0]["lr"],
    )
    print(f"test accuracy {accuracy:.4f}, hidden {filt.hidden}, last rate {rate:.2g}")
