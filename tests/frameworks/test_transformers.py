"""FilteredTrainer in the real Hugging Face: what it trains, in how many steps, what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler

import hvdfilter as hf
from tests.frameworks.cases import (
    BATCH,
    LAUNCHERS,
    SAMPLES,
    SHARES,
    Shares,
    by_hand,
    kept,
    make_net,
    make_set,
    order,
    run_example,
    weights,
)

transformers = pytest.importorskip("transformers")
FilteredTrainer = pytest.importorskip("hvdfilter.adapters.transformers").FilteredTrainer
# The library warns of what it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS = len(SHARES)


class Net(nn.Module):
    """What a Trainer takes: a loss where there are labels, and logits. Notes what it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()
        self.trained: list[int] = []

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, Any]:
        logits = self.net(x)
        if self.training:
            rows = make_set().tensors[0]
            self.trained += [int((rows == row).all(1).nonzero()) for row in x.detach()]
        loss = {} if labels is None else {"loss": F.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def samples() -> list[dict[str, Any]]:
    return [{"x": x, "labels": y} for x, y in make_set()]


def arguments(folder: Path, **options: Any) -> Any:
    return transformers.TrainingArguments(
        folder, report_to=[], use_cpu=True, disable_tqdm=True,
        **{"num_train_epochs": EPOCHS, "save_strategy": "no", "learning_rate": 0.01}
        | {"per_device_train_batch_size": BATCH} | options,
    )  # fmt: skip


def run(folder: Path, policy: Any, data: Any = None, **options: Any) -> Any:
    args = arguments(folder, **options)
    filt = hf.Filter(SAMPLES, policy, epochs=EPOCHS)
    trainer = FilteredTrainer(Net(), args, train_dataset=data or samples(), filt=filt)
    trainer.train()
    return trainer


def test_what_hides_nothing_trains_what_the_trainer_trains_alone(tmp_path: Path) -> None:
    class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
        """Draws in the order that a filter would."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    data, drawn = samples(), order(EPOCHS)
    # Four epochs in the filter's order are one epoch of a set that holds them one after the other;
    # 104 = 13 full batches, so that no batch holds samples of two epochs.
    few = [ids[: SAMPLES // BATCH * BATCH] for ids in drawn]
    plain = InOrder(
        Net(), arguments(tmp_path, num_train_epochs=1),
        train_dataset=[data[i] for ids in few for i in ids],
    )  # fmt: skip
    plain.train()
    filtered = run(tmp_path, "full", dataloader_drop_last=True)
    assert filtered.model.trained == plain.model.trained == [i for ids in few for i in ids]
    assert filtered.state.global_step == plain.state.global_step == EPOCHS * (SAMPLES // BATCH)
    # Losses are ours, in float32: their last bits differ from torch's, and Adam divides by them.
    torch.testing.assert_close(weights(filtered.model), weights(plain.model), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_all_epochs_are_trained_and_the_schedule_ends(tmp_path: Path, accumulate: int) -> None:
    trainer = run(tmp_path, Shares(), gradient_accumulation_steps=accumulate)
    wanted = kept(Shares())
    batches = [-(-len(ids) // BATCH) for ids in wanted]
    steps = sum(-(-number // accumulate) for number in batches)
    assert trainer.state.global_step == steps == trainer.state.max_steps
    seen = iter(trainer.model.trained)
    assert [sorted(next(seen) for _ in ids) for ids in wanted] == wanted and not list(seen)
    assert trainer.state.epoch == EPOCHS
    # The Trainer's rate falls in a line, which ends at 0.
    assert set(trainer.lr_scheduler.get_last_lr()) == {0.0}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_is_the_mean_of_its_batches(tmp_path: Path, accumulate: int) -> None:
    # Plain SGD without clipping, whose steps are as large as the gradient: Adam's are not. Batches
    # of an epoch are no multiple of three, so the last step has fewer.
    trainer = run(
        tmp_path, Shares(), gradient_accumulation_steps=accumulate, optim="sgd",
        learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0,
    )  # fmt: skip
    wanted = by_hand(accumulate=accumulate)
    torch.testing.assert_close(weights(trainer.model), wanted, atol=2e-6, rtol=1e-5)


def test_a_table_of_datasets_and_an_evaluation(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    x, y = make_set().tensors
    # A column that the model does not take goes, as it does in a Trainer.
    table = datasets.Dataset.from_dict(
        {"x": x.numpy(), "labels": y.numpy(), "name": ["n"] * SAMPLES}
    )
    trainer = run(tmp_path, Shares(), table)
    assert sorted(trainer.model.trained) == sorted(i for ids in kept(Shares()) for i in ids)
    with torch.no_grad():
        loss = F.cross_entropy(trainer.model.net(x), y).item()
    assert trainer.evaluate(table)["eval_loss"] == pytest.approx(loss, rel=1e-5)


def test_what_the_filter_cannot_follow_is_refused(tmp_path: Path) -> None:
    filt = hf.Filter(SAMPLES, "full", epochs=EPOCHS)

    def refused(sentence: str, resume: Any = None, **options: Any) -> None:
        loss = {"compute_loss_func": options.pop("loss")} if "loss" in options else {}
        data = options.pop("data", samples())
        with pytest.raises(hf.InputError, match=sentence):
            args = arguments(tmp_path, **options)
            FilteredTrainer(Net(), args, train_dataset=data, filt=filt, **loss).train(resume)

    refused(r"made for 4 epochs: TrainingArguments\(num_train_epochs=4\)", num_train_epochs=3)
    refused("not 4 epochs and max_steps=7", max_steps=7)
    refused("make the loss in sample_loss", loss=lambda *_, **__: None)
    refused("cannot resume_from_checkpoint", resume=True)
    refused("set has 100 samples and the filter was made for 101", data=samples()[:-1])
    streamed = filt.stream(samples(), BATCH)
    refused("KeptStream can only be iterated: filt.stream takes it, under", data=streamed)


def test_a_checkpoint_of_an_epochs_middle_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "full", save_strategy="steps", save_steps=3, num_train_epochs=EPOCHS)
    args, filt = arguments(tmp_path), hf.Filter(SAMPLES, "full", epochs=EPOCHS)
    trainer = FilteredTrainer(Net(), args, train_dataset=samples(), filt=filt)
    for saved in (str(tmp_path / "checkpoint-3"), True):
        with pytest.raises(hf.InputError, match="cannot resume_from_checkpoint"):
            trainer.train(resume_from_checkpoint=saved)


def test_a_model_in_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a model of a tensor parallel plan says of itself.
    monkeypatch.setattr(Net, "_tp_size", 2, raising=False)
    with pytest.raises(hf.InputError, match="2 ranks hold one model in parts"):
        run(tmp_path, "full")


@pytest.mark.parametrize(
    "member", ["_run_epoch", "_get_collator_with_removed_columns", "loss_is_scaled_for_ga"]
)
def test_a_release_without_what_is_leant_on_is_refused(
    member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(transformers.Trainer, member)
    told = f"leans on '{member}' of Trainer, which transformers {transformers.__version__} has not"
    with pytest.raises(hf.InstallError, match=told):
        run(tmp_path, "full")


def test_a_loop_that_plans_its_epochs_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_epoch(self: Any, model: Any, epoch: int, steps_in_epoch: int) -> None: ...

    monkeypatch.setattr(transformers.Trainer, "_run_epoch", run_epoch)
    with pytest.raises(hf.InstallError, match="leans on 'num_update_steps_per_epoch' of .*run_ep"):
        run(tmp_path, "full")


class Plain(transformers.Trainer):  # type: ignore[misc, name-defined]
    """A script with the filter's loss and epochs, that leaves the loader as it is."""

    filt: hf.Filter

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        return self.filt.loss(model(inputs["x"])["logits"], inputs["labels"], inputs["ids"])


class Begin(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        Plain.filt.begin_epoch(round(state.epoch), given["optimizer"])


def test_a_trainers_own_sampler_is_refused_with_the_remedy(tmp_path: Path) -> None:
    Plain.filt = hf.Filter(SAMPLES, Shares(), epochs=EPOCHS)
    args = arguments(tmp_path, remove_unused_columns=False)
    trainer = Plain(Net(), args, train_dataset=hf.Indexed(samples()), callbacks=[Begin()])
    with pytest.raises(hf.InputError, match="another sampler has taken its place.*FilteredTrainer"):
        trainer.train()


@pytest.mark.distributed
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_example(launcher: str) -> None:
    done = run_example("filtered_transformers.py", LAUNCHERS[launcher], "--epochs", "7")
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(r"accuracy (\S+), hidden (\d+), epochs (\S+), last rate (\S+)", done.stdout)[
        0
    ]
    assert float(found[0]) > 0.7 and int(found[1]) > 0
    assert found[2:] == ("7.0", "0")
