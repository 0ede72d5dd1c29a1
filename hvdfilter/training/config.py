"""The one typed description of a run: command line, YAML file and Python call all fill this in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hvdfilter.errors import InputError
from hvdfilter.registry import nearest
from hvdfilter.training.names import check_name

# Beyond these, numbers overflow where torch and MPI count; a seed has an epoch added to it.
MOST = {
    "epochs": 2**31 - 1,
    "batch_size": 2**31 - 1,
    "accumulate": 65536,
    "fusion_threshold_mb": 65536,
    "cycle_time_ms": 1000,
    "workers": 4096,
    "seed": 2**63 - 1,
    "limit": 2**63 - 1,
    "variance": 65536,
    "batch_growth": 65536,
}

LEAST = {
    **{"epochs": 1, "batch_size": 1, "accumulate": 1, "batch_growth": 1},
    **{"workers": 0, "seed": 0, "fusion_threshold_mb": 0, "cycle_time_ms": 0.1},
}

#: In which a model computes its products.
PRECISIONS = ("float32", "bfloat16")

#: The optimisers, and the rate for 256 samples that each takes where none is given.
RATES = {"sgd": 0.2, "lars": 4.0, "lamb": 0.02}


@dataclass
class TrainConfig:
    """What to train on, with which policy, and where to leave the results.

    data: digits, cifar10:DIR, parquet:DIR, idx:DIR, imagefolder:DIR, webdataset:DIR or PATTERN,
        synthetic:N,C,H,W,CLASSES or MODULE:READER of your own.
    decoded_cache: folder on a disk of each node (or /dev/shm) where its ranks keep the images of
        parquet, imagefolder and webdataset decoded, in one file that all of them map; made by them
        together when it is missing. By default none: only you know where a node has the room.
    model: cnn, resnet9, resnet18, resnet50, timm:NAME or MODULE:FACTORY of your own; cnn:WIDTH and
        resnet9:WIDTH choose the channels of the first layer.
    policy: which samples to keep; `hvdfilter policies` lists them; MODULE:CLASS for one of your
        own.
    policy_options: options of the policy, e.g. --policy_options.keep 0.6
    epochs: passes over the data.
    batch_size: samples a forward and backward on each rank.
    accumulate: of these, how many make a step: their gradients are added before they travel.
    batch_growth: what the batch is multiplied with, once, from batch_growth_epoch on; the rate
        follows it, warmed up again over as many epochs as at the start.
    batch_growth_epoch: by default the first epoch in which the policy may hide samples.
    optimizer: sgd (Nesterov's), or for large batches lars or lamb, which need the package
        pytorch-optimizer.
    lr: peak learning rate for 256 samples a step, scaled with the global batch: linearly, for lamb
        by the square root. By default 0.2 for sgd, 4 for lars, 0.02 for lamb.
    momentum: of sgd and lars; of lamb the decay of the mean gradient.
    weight_decay: of all weights but biases and normalisation.
    warmup_epochs: epochs of linear warm-up from a tenth of the peak rate; by default a tenth of
        all epochs, at most 5.
    extrapolation: gradients are taken this many plain steps ahead, along the last averaged
        gradient; 0 takes them where the weights are.
    shaping: friendly (ease inputs) or adversarial (perturb those that their scores pick).
    shaping_options: options of the shaping, e.g. --shaping_options.epsilon 0.1
    exchange: float32, float16 or 8bit, how precisely scores travel to the ranks that own them.
    seed: of initialisation, order, augmentation and every policy.
    budget_seconds: wall-clock seconds in which training is to end, from the opening of the data
        on: the policy's keep is chosen anew each epoch, not below policy_options.keep (0.3 where
        that is not given).
    precision: float32 or bfloat16, in which the model then computes its products (torch's
        autocast); weights, sums, their gradients and scores stay float32.
    channels_last: images with their channels side by side, which convolutions are faster on; by
        default for the reference networks, which are known to take them.
    fp16_allreduce: gradients travel in half precision.
    fusion_threshold_mb: the largest buffer, in MiB, in which Horovod lets gradients travel
        together; by default HOROVOD_FUSION_THRESHOLD, or Horovod's own, 128.
    cycle_time_ms: how often, in ms, Horovod looks for gradients to send; by default
        HOROVOD_CYCLE_TIME, or Horovod's own, 1.
    variance: mini-batches, of all ranks together, over which each epoch's end measures how much
        their gradient varies, for `hvdfilter variance`; each costs a step, twice. 0: none.
    limit: use only the first samples of the training and test sets.
    checkpoint_minutes: a checkpoint is written at the end of every epoch, and within one whenever
        so many minutes have passed since the last; 0: at the end of epochs alone.
    reproducible: have Horovod fuse no gradients, so that a run on any number of ranks repeats bit
        for bit; on 1, 2 and 4 it does anyway. Takes more and smaller messages.
    silence_minutes: a job in which a rank comes no further for so many minutes is ended, and the
        rank named; 0: never.
    elastic: under horovodrun with --host-discovery-script, go on from a checkpoint whenever ranks
        join or leave. Off by default: that launcher's server unpickles whatever reaches its port.
    workers: processes that load data on each rank, where it does not lie in memory; 0 loads in the
        training process. By default a GPU's rank has one for each of its cores but two, at most 8,
        and a CPU's none.
    runs: folder that holds the run folders.
    name: of the run folder; by default made from data, model and policy.
    resume: continue the run called `name` from its checkpoint; start it if there is none yet, so
        that one command serves a job that is requeued until it is done.
    """

    data: str = "digits"
    decoded_cache: Path | None = None
    model: str = "cnn"
    policy: str = "kakurenbo"
    policy_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 32
    accumulate: int = 1
    batch_growth: int = 1
    batch_growth_epoch: int | None = None
    optimizer: str = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float | None = None
    extrapolation: float = 0.0
    shaping: str | None = None
    shaping_options: dict[str, Any] = field(default_factory=dict)
    exchange: str = "float32"
    seed: int = 0
    budget_seconds: float | None = None
    precision: str = "float32"
    channels_last: bool | None = None
    fp16_allreduce: bool = False
    fusion_threshold_mb: float | None = None
    cycle_time_ms: float | None = None
    variance: int = 0
    limit: int | None = None
    checkpoint_minutes: float = 30.0
    reproducible: bool = False
    silence_minutes: float = 15.0
    elastic: bool = False
    workers: int | None = None
    runs: Path = Path("runs")
    name: str | None = None
    resume: bool = False

    def check(self) -> None:
        """Raise `InputError` for the first value that cannot be."""
        _check_types(self)
        for option, least in LEAST.items():
            if (value := getattr(self, option)) is not None and not value >= least:
                raise InputError(f"{option}={getattr(self, option)} must be at least {least}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit={self.limit} must be at least 1 sample")
        for option, most in MOST.items():
            if (getattr(self, option) or 0) > most:
                raise InputError(f"{option}={_short(getattr(self, option))} must be at most {most}")
        if self.name is not None:
            check_name(self.name)
        budget = self.budget_seconds
        if budget is not None and not (budget > 0 and math.isfinite(budget)):
            raise InputError(f"budget_seconds={budget} must be positive")
        if self.optimizer not in RATES:
            near = nearest(self.optimizer, RATES)
            meant = "" if near is None else f"; did you mean {near!r}?"
            known = ", ".join(RATES)
            raise InputError(f"optimizer={self.optimizer!r} is none{meant} (there are: {known})")
        start = self.batch_growth_epoch
        if start is not None and not 0 <= start < self.epochs:
            raise InputError(
                f"batch_growth_epoch={start} must be one of the run's epochs, 0 to "
                f"{self.epochs - 1}"
            )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision={self.precision!r} is none (there are: {', '.join(PRECISIONS)})"
            )
        if self.reproducible and self.fusion_threshold_mb:
            raise InputError(
                f"reproducible=true fuses no gradients, and fusion_threshold_mb="
                f"{self.fusion_threshold_mb:g} does: leave one of them out"
            )
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise InputError(f"lr={self.lr} must be positive")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum} must be in [0, 1)")
        if not (self.extrapolation >= 0 and math.isfinite(self.extrapolation)):
            raise InputError(f"extrapolation={self.extrapolation} must not be negative")
        if self.extrapolation and self.optimizer != "sgd":
            raise InputError(
                f"extrapolation={self.extrapolation} goes ahead by the rate of sgd, and "
                f"{self.optimizer} scales its own: take --optimizer sgd"
            )
        if self.shaping_options and self.shaping is None:
            raise InputError("shaping_options are given without a shaping: add --shaping NAME")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={self.weight_decay} must not be negative")
        if self.weight_decay > 1e38:  # of float32
            raise InputError(f"weight_decay={self.weight_decay} must be at most 1e38")
        if not 0 <= self.warmup < self.epochs:
            raise InputError(
                f"warmup_epochs={self.warmup_epochs} must be less than epochs={self.epochs}"
            )
        if self.variance < 0 or self.variance == 1:
            raise InputError(f"variance={self.variance} must be 0, or at least 2 mini-batches")
        for option in ("checkpoint_minutes", "silence_minutes"):
            minutes = getattr(self, option)
            if not (minutes >= 0 and math.isfinite(minutes)):
                raise InputError(f"{option}={minutes} must be 0 or more minutes")
        for option in ("resume", "elastic"):
            if getattr(self, option) and self.name is None:
                raise InputError(f"{option}=true needs the name of the run: add --name NAME")

    @property
    def fusion_mb(self) -> float | None:
        """Of the buffer in which gradients travel together; None is Horovod's own."""
        return 0.0 if self.reproducible else self.fusion_threshold_mb

    @property
    def warmup(self) -> float:
        """Epochs of warm-up, given or by default."""
        return min(5, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs

    @property
    def rate(self) -> float:
        """The rate for 256 samples, given or by default."""
        return RATES[self.optimizer] if self.lr is None else self.lr

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON and YAML can hold it."""
        values = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
        return values | {"lr": self.rate}


def _short(number: int) -> str:
    """A number as a sentence can hold it."""
    return str(number) if number < 10**20 else "(more than twenty digits)"


def _check_types(config: TrainConfig) -> None:
    """A line `epochs:` of a YAML file gives None, and a Python call may give anything."""
    for name, wanted in get_type_hints(TrainConfig).items():
        value = getattr(config, name)
        kinds = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
        if not any(_fits(value, kind) for kind in kinds):
            said = str(getattr(wanted, "__name__", wanted)).replace("NoneType", "None")
            raise InputError(f"{name}={value!r:.80} must be of type {said}")
    for name in ("policy_options", "shaping_options"):
        if odd := [option for option in getattr(config, name) if not isinstance(option, str)]:
            raise InputError(f"{name} has no option {odd[0]!r:.80}: its names are text")


def _fits(value: Any, kind: Any) -> bool:
    if kind is float and type(value) is int:
        return abs(value) < 2**63
    if kind in (int, float):
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, get_origin(kind) or kind)
