"""Hugging Face's Trainer, alone or by `torchrun --nproc_per_node 2 filtered_transformers.py`.

A small vision transformer from its configuration; nothing is downloaded.
"""

import argparse
import tempfile

import torch
from sklearn.datasets import load_digits
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import hvdfilter as hf
from hvdfilter.adapters.transformers import FilteredTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

# Before the filter, since they join the ranks: on CPUs only where told that this is meant.
args = TrainingArguments(
    tempfile.mkdtemp(), num_train_epochs=epochs, per_device_train_batch_size=32,
    learning_rate=2e-3, warmup_steps=20, save_strategy="no", report_to=[], disable_tqdm=True,
    use_cpu=not torch.cuda.is_available(),
)  # fmt: skip
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
samples = [{"pixel_values": x, "labels": y} for x, y in zip(x, labels, strict=True)]
config = ViTConfig(
    image_size=8, patch_size=2, num_channels=1, num_labels=10, hidden_size=64,
    num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
)  # fmt: skip
torch.manual_seed(0)
filt = hf.Filter(1437, policy="kakurenbo", epochs=epochs)
trainer = FilteredTrainer(
    ViTForImageClassification(config),
    args,
    filt=filt,
    train_dataset=samples[:1437],
    compute_metrics=lambda found: {
        "accuracy": (found.predictions.argmax(1) == found.label_ids).mean()
    },
)
trainer.train()
accuracy = trainer.evaluate(samples[1437:])["eval_accuracy"]
if trainer.is_world_process_zero():
    rate = trainer.lr_scheduler.get_last_lr()[0]
    print(f"test accuracy {accuracy:.4f}, hidden {filt.hidden}, ", end="")
    print(f"epochs {trainer.state.epoch}, last rate {rate:.2g}")
trainer.accelerator.end_training()  # the group's threads must not outlive the interpreter
