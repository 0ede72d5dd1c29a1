"""FilterCallback in the real Lightning: what it trains, validates, schedules, saves, refuses."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset, TensorDataset

import hvdfilter as hf
from tests.distributed.launch import ROOT
from tests.frameworks.cases import (
    BATCH,
    LAUNCHERS,
    SAMPLES,
    SHARES,
    TORCHRUN,
    Shares,
    kept,
    make_net,
    make_set,
    order,
    run_example,
    weights,
)

L = pytest.importorskip("pytorch_lightning")
FilterCallback = pytest.importorskip("hvdfilter.adapters.lightning").FilterCallback
# Lightning warns of few workers, of no logger, and of what it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS = len(SHARES)
MOMENT = timedelta(microseconds=1)  # over whenever a batch is done


class Module(L.LightningModule):  # type: ignore[misc, name-defined]
    """Notes what it trains, validates and schedules; without a filter it is plain Lightning."""

    def __init__(self, filt: hf.Filter | None, steps: int = 1) -> None:
        super().__init__()
        self.net, self.filt, self.steps = make_net(), filt, steps
        self.trained: list[list[int]] = []
        self.validated: list[int] = []
        self.asked: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.trained.append([])

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        ids, x, y = batch
        self.trained[-1] += ids.tolist()
        if self.filt is None:
            return F.cross_entropy(self.net(x), y)
        return self.filt.loss(self.net(x), y, ids)

    def validation_step(self, batch: Any, _: int) -> None:
        self.validated.append(self.trainer.current_epoch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        # Its number is asked for at every step that it makes.
        schedule = LambdaLR(optimizer, lambda step: self.asked.append(step) or 0.99**step)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit(
    policy: Any = None,
    folder: Path | None = None,
    go_on: Path | None = None,
    looked_at: Path | None = None,
    **options: Any,
) -> Module:
    """Train; without a policy by Lightning alone, in the order that a filter would draw."""
    filt = None if policy is None else hf.Filter(SAMPLES, policy, epochs=EPOCHS)
    data: Any = hf.Indexed(options.pop("data", make_set()))
    workers, every = options.pop("workers", 0), options.pop("save_every", None)
    callbacks: list[Any] = []
    if filt is None:
        loader = DataLoader(data, BATCH, sampler=iter_of_epochs())
    elif options.pop("stream", False):
        loader = DataLoader(filt.stream(make_set(), BATCH), BATCH, num_workers=workers)
    else:
        loader = DataLoader(data, BATCH, sampler=filt.sampler(), num_workers=workers)
    if filt is not None:
        callbacks.append(FilterCallback(filt))
    if folder is not None:
        callbacks.append(
            L.callbacks.ModelCheckpoint(
                folder, "{epoch}", save_top_k=-1, every_n_train_steps=every,
                save_on_train_epoch_end=None if every else True,
            )
        )  # fmt: skip
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=folder is not None,
        callbacks=callbacks, **{"max_epochs": EPOCHS, **options},
    )  # fmt: skip
    module = Module(filt)
    check = DataLoader(TensorDataset(torch.zeros(4, 6)), 4)
    if looked_at is not None:
        trainer.validate(module, check, ckpt_path=looked_at, verbose=False)
        module.load_state_dict(Module(None).state_dict())
    trainer.fit(module, loader, check, ckpt_path=go_on)
    if filt is not None:
        assert filt.next_epoch == trainer.current_epoch
    return module


class iter_of_epochs:
    """A sampler that yields the filter's order of epoch 0, then of epoch 1, and so on."""

    def __init__(self) -> None:
        self.epochs = iter(order(EPOCHS))

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Any:
        return iter(next(self.epochs))


def test_what_hides_nothing_trains_what_lightning_trains_alone() -> None:
    plain, filtered = fit(), fit("full")
    assert filtered.trained == plain.trained == order(EPOCHS)
    assert filtered.asked == plain.asked and filtered.validated == plain.validated
    # Losses are ours, in float32: their last bits differ from torch's.
    torch.testing.assert_close(weights(filtered.net), weights(plain.net), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"workers": 1}, {"accumulate_grad_batches": 3}, {"val_check_interval": 5},
        {"stream": True}, {"val_check_interval": MOMENT}, {"val_check_interval": "00:00:15:00"},
    ],
    ids=[
        "plain", "workers", "accumulated", "validated within epochs",
        "streamed", "validated by the clock", "validated later",
    ],
)  # fmt: skip
def test_every_epoch_trains_its_mask_and_is_validated(options: dict[str, Any]) -> None:
    module = fit(Shares(), **options)
    assert [sorted(ids) for ids in module.trained] == kept(Shares())
    # A sanity check comes first, and validation in every epoch, however short.
    by_clock = isinstance(interval := options.get("val_check_interval"), str | timedelta)
    if not by_clock:
        assert set(module.validated) == set(range(EPOCHS))
    if interval is None:
        assert module.validated == [0, *range(EPOCHS)]
    elif by_clock:
        batches = [-(-len(ids) // BATCH) for ids in module.trained]
        each = [epoch for epoch, number in enumerate(batches) for _ in range(number)]
        assert module.validated == ([0, *each] if interval is MOMENT else [0])
    # The scheduler makes all steps of a run in full, not only as many as are trained.
    full = -(-SAMPLES // BATCH)
    assert module.asked == list(
        range(-(-full // options.get("accumulate_grad_batches", 1)) * EPOCHS + 1)
    )


class ReadsLate(L.strategies.SingleDeviceStrategy):  # type: ignore[misc, name-defined]
    """Reads a checkpoint when its model is set up, as FSDP and DeepSpeed do."""

    restore_checkpoint_after_setup = True


@pytest.mark.parametrize("strategy", ["auto", ReadsLate("cpu")], ids=["early", "late"])
def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    strategy: Any, tmp_path: Path
) -> None:
    whole = fit("infobatch", folder=tmp_path / "whole")
    fit("infobatch", folder=tmp_path / "part", max_epochs=2)
    rest = fit("infobatch", go_on=tmp_path / "part" / "epoch=1.ckpt", strategy=strategy)
    assert rest.trained == whole.trained[2:] and len(rest.trained) == 2
    assert torch.equal(weights(rest.net), weights(whole.net))
    # What is only looked at is not gone on from.
    anew = fit("infobatch", looked_at=tmp_path / "part" / "epoch=1.ckpt")
    assert anew.trained == whole.trained


def test_a_checkpoint_of_an_epochs_middle_is_refused(tmp_path: Path) -> None:
    # Every seven of 51 batches: the last three of the second epoch's 13, and not its end.
    fit("full", folder=tmp_path, save_every=7, max_epochs=2)
    saved = tmp_path / "epoch=1.ckpt"
    with pytest.raises(hf.InputError, match="saved within an epoch.*save_on_train_epoch_end=True"):
        fit("full", go_on=saved)
    fit("full", looked_at=saved)


def test_a_release_without_what_is_leant_on_is_refused() -> None:
    callback = FilterCallback(hf.Filter(SAMPLES, "full", epochs=EPOCHS))

    def refused(kind: str, member: str) -> None:
        trainer = L.Trainer(max_epochs=EPOCHS, logger=False, enable_checkpointing=False)
        callback.setup(trainer, None, "fit")
        delattr(trainer if kind == "Trainer" else trainer.fit_loop, member)
        told = f"leans on {member!r} of {kind}, which pytorch-lightning {L.__version__} has not"
        with pytest.raises(hf.InstallError, match=re.escape(told)):
            callback.setup(trainer, None, "fit")

    refused("_FitLoop", "_combined_loader")
    refused("_FitLoop", "_data_fetcher")
    refused("_FitLoop", "max_batches")
    refused("Trainer", "_val_check_time_interval")


def test_what_the_filter_cannot_follow_is_refused_before_training() -> None:
    with pytest.raises(hf.InputError, match=r"made for 4 epochs: Trainer\(max_epochs=4\), not 5"):
        fit("full", max_epochs=5)
    with pytest.raises(hf.InputError, match=r"Trainer\(max_epochs=4\), not -1"):
        fit("full", max_epochs=-1)
    with pytest.raises(hf.InputError, match=r"draws from SequentialSampler in the place of"):
        fit("full", overfit_batches=3)
    with pytest.raises(hf.InputError, match="set has 100 samples and the filter was made for 101"):
        fit("full", data=Subset(make_set(), range(SAMPLES - 1)))


EXAMPLE = ROOT / "examples" / "filtered_lightning.py"


@pytest.mark.distributed
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_example(launcher: str) -> None:
    done = run_example("filtered_lightning.py", LAUNCHERS[launcher], "--epochs", "7")
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy, hidden, rate = re.findall(
        r"accuracy (\S+), hidden (\d+), last rate (\S+)", done.stdout
    )[0]
    assert float(accuracy) > 0.85 and int(hidden) > 0
    assert float(rate) < 1e-4  # OneCycleLR's last one: all of its steps were made


@pytest.mark.distributed
def test_lightnings_own_sampler_is_refused_on_every_rank(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    source = EXAMPLE.read_text()
    assert source.count("use_distributed_sampler=False") == 1
    program.write_text(
        source.replace("use_distributed_sampler=False", "use_distributed_sampler=True")
    )
    done = run_example(str(program), TORCHRUN, "--epochs", "2")
    assert done.returncode != 0
    told = "Lightning draws from DistributedSamplerWrapper in the place of filt.sampler()"
    assert done.stderr.count(f"InputError: {told}") >= 2, done.stderr[-3000:]
