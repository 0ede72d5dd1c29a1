"""Hugging Face's Trainer: its loader handed over as it is, and a sampler of its own instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import hvdfilter as hf

EPOCHS = 3


class Net(nn.Module):
    """Logits that say how hard each sample is, on any day: the larger x, the easier."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * self.bias


def train(folder: Path, ours: bool) -> list[int]:
    """Train 96 samples for three epochs; returns how many each one hid."""
    transformers = pytest.importorskip("transformers")
    labels = torch.arange(96) % 3
    logits = torch.eye(3)[labels] * torch.linspace(0.1, 9, 96)[:, None]
    samples = [{"x": x, "y": y} for x, y in zip(logits, labels, strict=True)]
    hidden: list[int] = []
    filt = hf.Filter(96, hf.policies.make("kakurenbo", warmup=1, tau=0.2), epochs=EPOCHS)

    class Trainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        """What a script writes: the loader, the loss, and the start of an epoch."""

        def get_train_dataloader(self) -> Any:
            if not ours:
                return super().get_train_dataloader()
            return DataLoader(self.train_dataset, 8, sampler=filt.sampler())

        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
            return filt.loss(model(inputs["x"]), inputs["y"], inputs["ids"])

    class Epochs(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        """Begins the filter's epoch with the Trainer's."""

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            filt.begin_epoch(round(state.epoch), given["optimizer"])
            hidden.append(filt.hidden)

    arguments = transformers.TrainingArguments(
        folder, num_train_epochs=EPOCHS, per_device_train_batch_size=8, report_to=[],
        remove_unused_columns=False, use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(Net(), arguments, train_dataset=hf.Indexed(samples), callbacks=[Epochs()]).train()
    filt.end_epoch()
    return hidden


def test_a_loader_handed_over_as_it_is(tmp_path: Path) -> None:
    first, second, third = train(tmp_path, ours=True)
    # What the second epoch hid was not looked at again, and so comes back in the third.
    assert first == third == 0 < second < 96


def test_its_own_sampler_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        hf.InputError, match=r"another sampler has taken its place.*get_train_dataloader"
    ):
        train(tmp_path, ours=False)
